"""A model as one differentiable `torch.nn.Module`: waveform in, stems out.

What `unetsep.Separator` does for endless songs in constant memory, a `Model` does for a batch of
clips at once, with gradients: STFT, masks, masks times spectrum, inverse STFT. There is no loop
over segments, so `torch.export` and `torch.compile` take it as it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import ModelConfig
from ..dsp.spectrogram import extension_weights, overlap_add_with_gradients
from ..errors import WeightsError
from ..network.guided import Guided
from ..network.low_band import fine_inputs
from ..network.masks import MaskNetwork, ratio_masks
from ..network.unet import UNet, safe_sqrt
from ..storage import write_atomically
from .checkpoint import build_network, serialize
from .load import carry_guide, load_guide, load_network
from .manifest import SUFFIX, is_path


class Model(nn.Module):
    """A mask network with the signal path around it: waveforms in, stems out.

    A clip is one segment, as in training. For clips of up to ``config.segment_frames`` frames
    (512: 11.9 s) the stems are those of `unetsep.Separator` at the model's own rate, with
    ``gate=False`` and ``wiener=0``. Only `Separator` separates channels with little in common each
    by itself. Neither the gate nor the filter that may follow the
    network is part of it. Longer ones are not divided, so memory grows with their length: use a
    `unetsep.Separator` for them.

    Parameters
    ----------
    network
        For instance from `unetsep.load_network`. It becomes part of this module, and so does its
        guide if it has one, whose statistics training does not change.

    Attributes
    ----------
    config
        The network's: ``stems``, ``sample_rate`` and so on.

    Examples
    --------
    >>> model = Model.from_pretrained("fast")
    >>> model(torch.zeros(3, 2, 44_100)).shape
    torch.Size([3, 4, 2, 44100])
    >>> model.stems
    ('vocals', 'drums', 'bass', 'other')
    """

    window: Tensor

    def __init__(self, network: MaskNetwork) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ValueError(f"expected a network, got {network!r}: use Model.from_pretrained")
        self.config: ModelConfig = network.config
        self.network = network
        self.guide: UNet | None = network.guide if isinstance(network, Guided) else None
        window = torch.hann_window(self.config.n_fft, periodic=True)
        self.register_buffer("window", window, persistent=False)
        self._folder: Path | None = None  # of the file that it was loaded from, with its guide

    @classmethod
    def from_pretrained(cls, model: str | Path = "default") -> Model:
        """A published model, or one from a file.

        Parameters
        ----------
        model
            A name (``unetsep models`` lists them) or the path of a ``.safetensors`` file.

        Returns
        -------
        Model
            In evaluation mode, fp32, on the CPU, with frozen weights: call
            ``network.requires_grad_()`` to train them.

        Raises
        ------
        WeightsError
            If there is no such model, or the file is damaged.
        """
        loaded = cls(load_network(model)).eval()
        loaded._folder = Path(model).absolute().parent if is_path(model) else None
        return loaded

    def save(self, path: str | Path) -> Path:
        """Write the network as a checkpoint, which every command and `from_pretrained` take.

        A guide is not written: it stays a checkpoint of its own. One that is not published is
        copied beside the new file if it lay beside the file of `from_pretrained`.

        Parameters
        ----------
        path
            File to write, or to replace; its name ends in ``.safetensors``. It appears only when
            it is complete; a missing folder is made. Weights are stored in fp32.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        WeightsError
            If a weight is NaN or infinite, the guide was trained or is not found, or the file
            cannot be written; one that is there stays. Also if the network has other layers than
            its config, as after ``weight_norm``.
        ValueError
            If the name ends otherwise.

        Examples
        --------
        >>> model = Model.from_pretrained("fast")
        >>> model.save("mine.safetensors")  # doctest: +SKIP
        PosixPath('mine.safetensors')
        """
        target = Path(path)
        if target.suffix != SUFFIX:
            raise ValueError(f"{path}: expected a name that ends in {SUFFIX}")
        content = serialize(self.network, half=False)
        build_network(content, f"{target} cannot be written: the network")  # as it will be loaded
        try:
            if self.guide is not None:
                self._carry_guide(self.guide, target)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)
        except OSError as error:  # it names the temporary file, which was removed
            raise WeightsError(f"{target} cannot be written: {error.strerror}") from error
        return target

    def _carry_guide(self, guide: UNet, target: Path) -> None:
        """Make sure that the saved network will find its guide, and that it is this one."""
        sha256, folder = self.config.guide, self._folder or target.parent
        state = load_guide(sha256, folder, str(target)).state_dict()
        for name, tensor in guide.state_dict().items():
            if not torch.equal(tensor.cpu(), state[name].to(tensor.dtype)):
                raise WeightsError(
                    f"{target} cannot be written: the guide was changed, by training all "
                    "parameters of the model; train those of its network alone"
                )
        carry_guide(sha256, folder, target.parent)

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the stems, in the order of the output."""
        return self.config.stems

    @property
    def sample_rate(self) -> int:
        """Rate in Hz that waveforms must have; resample others before."""
        return self.config.sample_rate

    def train(self, mode: bool = True) -> Model:
        """Set training or evaluation; a guide keeps its statistics in either."""
        super().train(mode)
        if self.guide is not None:
            self.guide.eval()
        return self

    def forward(self, waveform: Tensor) -> Tensor:
        """Stems of a batch of clips.

        Parameters
        ----------
        waveform
            ``(batch, channels, samples)``, float32, at `sample_rate`, at any level, of one or more
            clips, channels and samples. Unless there are two channels, each is separated by itself.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, samples)``. If the stems are all of the mixture
            (``config.complete``), they add up to it: the last is what the others leave.

        Raises
        ------
        ValueError
            If it is no tensor, or empty, or of another shape, or of a type beyond float32.
        """
        if not isinstance(waveform, Tensor):
            kind = type(waveform).__name__
            raise ValueError(f"expected a tensor, got {kind}: use torch.from_numpy")
        dtype = self.window.dtype
        if torch.promote_types(waveform.dtype, dtype) != dtype:
            raise ValueError(f"expected {dtype}, got {waveform.dtype}: use .to({dtype})")
        if waveform.dim() != 3 or 0 in waveform.shape:
            raise ValueError(
                "expected waveforms (batch, channels, samples), none of them 0, "
                f"got {tuple(waveform.shape)}"
            )
        samples = waveform.shape[-1]
        spectrum = self.spectrum(waveform)
        masks = self.masks(spectrum)
        # (batch, stems, channels, frames, all bins)
        stems = self.waveform((self._in_full_band(masks) * spectrum.mT[:, None]).mT, samples)
        if self.config.complete:
            estimates = stems[:, :-1]
            remainder = waveform[:, None] - estimates.sum(dim=1, keepdim=True)
            stems = torch.cat([estimates, remainder], dim=1)
        return stems

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Spectrum of whole clips, with as many frames as the network needs.

        Parameters
        ----------
        waveform
            ``(..., samples)``.

        Returns
        -------
        Tensor
            Complex, ``(..., n_fft // 2 + 1, frames)``.
        """
        config = self.config
        hop = config.hop_length
        unit = config.segment_frames if config.pad_segments else config.frame_multiple
        # Four windows cover every sample, and silence fills the last unit. The padding is constant
        # and frames come in whole units, as `torch.export` requires.
        span = config.n_fft + (unit - 1) * hop
        lead = (config.n_fft - hop) + config.lead_frames * hop
        padded = functional.pad(waveform, (lead, span - 1))
        units = padded.unfold(-1, span, unit * hop)  # (..., units, span)
        frames = units.unfold(-1, config.n_fft, hop) * self.window  # (..., units, unit, n_fft)
        spectrum: Tensor = torch.fft.rfft(frames.flatten(-3, -2))
        return spectrum.mT

    def masks(self, spectrum: Tensor) -> Tensor:
        """Masks of all stems in the network's bins.

        Parameters
        ----------
        spectrum
            Complex, ``(batch, channels, all bins, frames)``, of `spectrum`.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``, from 0 to 1.
        """
        config = self.config
        channels = spectrum.shape[1]
        magnitude = _magnitudes(spectrum[:, :, : config.bins])
        inputs = (magnitude, *fine_inputs(spectrum, config, overlap_add_with_gradients))
        if channels == config.channels:
            return self.masks_of_magnitudes(*inputs)
        # Each channel as a separate clip.
        mono = (each.flatten(0, 1)[:, None].expand(-1, config.channels, -1, -1) for each in inputs)
        masks = self.network.masks(self._logits(*mono)).mean(dim=2)
        # (batch * channels, stems, bins, frames) to (batch, channels, stems, bins, frames)
        masks = masks.reshape(-1, channels, *masks.shape[1:]).movedim(1, 2)
        return ratio_masks(masks, magnitude, config)

    def masks_of_magnitudes(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:
        """Masks from magnitudes alone: what `unetsep.weights.onnx` exports.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)`` with the network's own channels and bins, and as
            many frames as `spectrum` gives.
        fine
            See `MaskNetwork.logits`.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``, from 0 to 1.
        """
        masks = self.network.masks(self._logits(magnitude, fine))
        return ratio_masks(masks, magnitude, self.config)

    def waveform(self, spectrum: Tensor, samples: int) -> Tensor:
        """Inverse of `spectrum`.

        Parameters
        ----------
        spectrum
            Complex, ``(..., all bins, frames)``.
        samples
            Of the clips.

        Returns
        -------
        Tensor
            ``(..., samples)``.
        """
        hop = self.config.hop_length
        padded = overlap_add_with_gradients(spectrum, hop)
        lead = self.config.n_fft - hop + self.config.lead_frames * hop
        # By indices: `torch.export` could not prove the length of a slice.
        return padded.index_select(-1, torch.arange(samples, device=padded.device) + lead)

    def _logits(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:
        """`MaskNetwork.logits`, but with gradients through the guide."""
        if self.guide is None:
            return self.network.logits(magnitude)
        assert isinstance(self.network, Guided)
        return self.network.logits_through(self.guide, magnitude, fine)

    def _in_full_band(self, masks: Tensor) -> Tensor:
        """Masks extended above by their mean over the top bins, frames before bins."""
        weights = extension_weights(masks)  # (batch, stems, channels, frames)
        count = self.config.n_fft // 2 + 1 - self.config.bins
        return torch.cat([masks.mT, weights[..., None].expand(*weights.shape, count)], dim=-1)


def _magnitudes(spectrum: Tensor) -> Tensor:
    """Absolute values, with zero gradient in silence."""
    return safe_sqrt(spectrum.real.square() + spectrum.imag.square())
