"""Load a model once, separate arrays or streams of blocks."""

from __future__ import annotations

import copy
import functools
import itertools
import numbers
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .config import MAX_CHANNELS, MAX_ITERATIONS
from .dsp.arrays import Signal, as_rate, as_signal, check_finite, regroup
from .dsp.passes import MAX_PASSES, SongPasses, pass_rates
from .dsp.segments import SegmentPool
from .dsp.signal_path import SongPass
from .dsp.song_stream import Progress, Selection, SongStream, check_progress, push_all
from .ensemble import Ensemble, ModelLike
from .errors import check_choice
from .network.devices import choose_precision, usable_device

MASK_EXTENSIONS = ("top", "zeros")
Audio = npt.ArrayLike | Tensor
"""An array or tensor, ``(channels, samples)`` or ``(samples,)``."""
# Small blocks of a stream are joined to this length: few samples cost as much as many.
MIN_BLOCK_SECONDS = 0.5


class Separator:
    """A model that is loaded once and separates any number of songs.

    Parameters
    ----------
    model
        Name from the manifest (``unetsep models`` lists them), path of a checkpoint, a network
        or a `unetsep.Model`; or a list of these, whose masks are averaged. They must agree in
        `unetsep.config.SIGNAL_PATH`. Segments and overlap are those of the first, see
        `unetsep.config.common_config`.
    device
        ``auto`` takes CUDA, then Apple's GPU, then the CPU. Of several GPUs ``cuda:1`` is the
        second, and ``cuda`` the one that torch has chosen where the model is loaded.
    precision
        ``auto`` computes the network in bfloat16 where the CPU does so natively, else in
        float32. Masks, spectra and sums are float32 in any case.
    overlap
        Share of a segment that neighbours have in common, 0 to 0.5; default: the model's.
    mask_extension
        Above the network's top bin: ``top`` extends the mask, ``zeros`` drops everything,
        as Spleeter does.
    wiener
        Iterations of a multichannel Wiener filter over the stems, see `unetsep.dsp.wiener`; 0 for
        none, default: the model's.
    gate
        Whether silent stems are attenuated as the model's config says, see
        `unetsep.network.masks.gate_`.
    passes
        How often a song goes through the model, 1 to 4: each time at another pitch, see
        `unetsep.dsp.passes`. The stems are averaged. The time grows nearly in proportion.

    Raises
    ------
    WeightsError
        If the model cannot be loaded.
    UnetsepError
        If the device is not available.
    ValueError
        For other values than those above.

    Examples
    --------
    >>> separator = Separator()
    >>> stems = separator.separate(np.zeros((2, 44_100), np.float32), 44_100)
    >>> stems["vocals"].shape
    (2, 44100)
    """

    def __init__(
        self,
        model: ModelLike | Sequence[ModelLike] = "default",
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        overlap: float | None = None,
        mask_extension: str = "top",
        wiener: int | None = None,
        gate: bool = True,
        passes: int = 1,
    ) -> None:
        check_choice("mask_extension", mask_extension, MASK_EXTENSIONS)
        self.device = usable_device(device)
        self.precision = choose_precision(precision, self.device)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._ensemble = Ensemble(model, self.device, dtype)
        self.device, self.name = self._ensemble.device, self._ensemble.name
        self.config = self._ensemble.config
        self.overlap = self.config.overlap if overlap is None else as_overlap(overlap)
        self.mask_extension = mask_extension
        iterations = self.config.wiener if wiener is None else wiener
        self.wiener = as_count("wiener", iterations, 0, MAX_ITERATIONS)
        self.gate_db = self.config.gate_db if gate else None
        self.passes = as_count("passes", passes, 1, MAX_PASSES)

    def __repr__(self) -> str:
        device, precision = str(self.device), self.precision
        return f"Separator({self.name!r}, device={device!r}, precision={precision!r})"

    @property
    def checkpoints(self) -> list[tuple[str, str]]:
        """Name and SHA-256 of each model: of its checkpoint, or of a network's weights."""
        return self._ensemble.checkpoints

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the model's stems."""
        return self.config.stems

    def select(self, stems: Sequence[str] | None = None, two_stems: str | None = None) -> Selection:
        """Resolve a choice of stems.

        Parameters
        ----------
        stems
            Names, in any order, or one name; default: all.
        two_stems
            One stem; the other output, ``no_<stem>``, is the rest of the mixture.

        Raises
        ------
        ValueError
            If a stem is not the model's, or both are given.
        """
        if stems is not None and two_stems is not None:
            raise ValueError("choose either stems or two_stems, not both")
        names = self.stems if stems is None else (stems,) if isinstance(stems, str) else stems
        if not isinstance(names, Collection) or not len(names):
            raise ValueError(
                f"stems must name some of {', '.join(self.stems)}, got {stems!r}; leave it out "
                "for all"
            )
        selected = list(names) if two_stems is None else [two_stems]
        for stem in selected:
            if stem not in self.stems:
                raise ValueError(
                    f"model {self.name} has no stem {stem!r}: expected "
                    f"{', '.join(self.stems)}{self._cure(str(stem), single=two_stems is not None)}"
                )
        if two_stems is not None:
            index = self.stems.index(two_stems)
            return Selection((two_stems, f"no_{two_stems}"), (index, -1 - index))
        unique = tuple(dict.fromkeys(selected))
        return Selection(unique, tuple(self.stems.index(stem) for stem in unique))

    def _cure(self, stem: str, *, single: bool) -> str:
        """What helps users who chose a stem that the model does not have, if that is known."""
        if stem.startswith("no_") or stem in ("instrumental", "accompaniment"):
            return "; for the song without one of them use --without STEM, in Python two_stems"
        if stem == "piano":
            return "; the model spleeter-5stems has one"
        several = [name.strip() for name in stem.split(",")]
        others = [name for name in self.stems if name not in several]
        if single and len(several) > 1 and others:
            return f"; choose one, or write the others with --stems {','.join(others)}"
        return ""

    def separate(
        self,
        audio: Audio,
        sample_rate: float,
        *,
        stems: Sequence[str] | None = None,
        two_stems: str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Signal]:
        """Separate a whole signal in memory.

        `unetsep.separate` does the same for a file, with this separator as its model.

        Parameters
        ----------
        audio
            ``(channels, samples)`` or ``(samples,)``: an array, or a tensor of any type on any
            device. Floats have any level, integers that of files: int16 is divided by 32768.
        sample_rate
            In Hz, a whole number from 1000 to 1000000.
        stems, two_stems
            See `select`.
        progress
            Called after each block with the completed and total seconds; return False to
            cancel.

        Returns
        -------
        dict
            Stem name to float32 array of the shape of ``audio``.

        Raises
        ------
        ValueError
            If the array has no samples, another shape, over 64 channels, or is not finite, or
            the rate is invalid.
        CancelledError
            If ``progress`` returned False.
        """
        selection, rate = self.select(stems, two_stems), as_rate(sample_rate)
        signal = as_signal(audio)
        if signal.size == 0:
            raise ValueError(f"audio must be (channels, samples) or (samples,), got {signal.shape}")
        check_finite(signal, rate)
        channels = np.atleast_2d(signal)
        size = self.block_samples(rate)
        blocks = regroup([channels], size, size)
        song = self.open_song(rate, len(channels), selection)
        total = channels.shape[1] / rate
        stem_blocks = [
            block.floats() for (block,) in push_all([song], blocks, rate, total, progress)
        ]
        return selection.named(np.concatenate(stem_blocks, axis=-1), mono=signal.ndim == 1)

    def stream(
        self,
        blocks: Iterable[Audio],
        sample_rate: float,
        *,
        stems: Sequence[str] | None = None,
        two_stems: str | None = None,
        progress: Progress | None = None,
    ) -> Iterator[dict[str, Signal]]:
        """Separate a stream of blocks with constant memory.

        Parameters
        ----------
        blocks
            ``(channels, samples)`` or ``(samples,)``, all with the same channels, of any sizes;
            small ones are joined to half a second. Stems lag by up to a segment and such a
            block. A Wiener filter adds 0.1 s at an overlap of 0.25, which most models have, and
            up to 9 s at others. Several passes add a fifth of all.
        sample_rate
            In Hz, a whole number from 1000 to 1000000.
        stems, two_stems
            See `select`.
        progress
            Called after each block, or several joined ones, with the completed seconds and
            None; return False to cancel.

        Yields
        ------
        dict
            Stem name to float32 array with as many axes as the blocks have; in total as many
            samples as the blocks.

        Raises
        ------
        ValueError
            If a block has over 64 channels, other channels than the first, or is not finite,
            or the rate is invalid.
        CancelledError
            If ``progress`` returned False.
        """
        selection, rate = self.select(stems, two_stems), as_rate(sample_rate)
        _check_blocks(blocks)
        check_progress(progress)
        return self._stream(blocks, rate, selection, progress)

    def _stream(
        self,
        blocks: Iterable[Audio],
        rate: int,
        selection: Selection,
        progress: Progress | None,
    ) -> Iterator[dict[str, Signal]]:
        """`stream` after the checks of its arguments, which a generator would do later."""
        signals = self._checked(blocks, rate)
        first = next(signals, None)
        if first is None:
            return
        mono = first.ndim == 1
        channels = 1 if mono else len(first)
        size = max(1, round(MIN_BLOCK_SECONDS * rate))
        two_axes = (np.atleast_2d(each) for each in itertools.chain((first,), signals))
        joined = regroup(two_axes, size, max(size, self.block_samples(rate)))
        song = self.open_song(rate, channels, selection)
        for (out,) in push_all([song], joined, rate, None, progress):
            if out.samples:
                yield selection.named(out.floats(), mono=mono)

    @staticmethod
    def _checked(blocks: Iterable[Audio], rate: int) -> Iterator[Signal]:
        """Yield the blocks of a stream as they come, after checking each."""
        shape: tuple[int, ...] | None = None
        samples = 0
        for block in blocks:
            # A copy, as the caller may reuse the array for the next block while this one waits.
            signal = as_signal(block).copy()
            shape = signal.shape[:-1] if shape is None else shape
            if signal.shape[:-1] != shape:
                form = f"({shape[0]}, samples)" if shape else "(samples,)"
                raise ValueError(f"expected blocks {form}, got {signal.shape}")
            check_finite(signal, rate, samples)
            samples += signal.shape[-1]
            yield signal

    def with_passes(self, passes: int) -> Separator:
        """A separator with another number of passes, which shares the model in memory.

        Parameters
        ----------
        passes
            From 1 to 4.

        Raises
        ------
        ValueError
            For another value.
        """
        separator = copy.copy(self)
        separator.passes = as_count("passes", passes, 1, MAX_PASSES)
        return separator

    def open_song(
        self,
        sample_rate: float,
        channels: int,
        selection: Selection | Sequence[str] | None = None,
        pool: SegmentPool | None = None,
    ) -> SongStream:
        """A song to push blocks into; see `SongStream`.

        Parameters
        ----------
        sample_rate
            In Hz, a whole number from 1000 to 1000000.
        channels
            Of the song, 1 to 64.
        selection
            From `select`, or names of stems; default: all.
        pool
            Threads for several segments at once.

        Raises
        ------
        ValueError
            For other values.
        """
        rate, channels = as_rate(sample_rate), as_count("channels", channels, 1, MAX_CHANNELS)
        if not isinstance(selection, Selection):
            selection = self.select(selection)
        estimate = self.estimate
        if self._ensemble.independent and not self.wiener:  # the filter needs all stems
            estimate = functools.partial(self.estimate, wanted=selection.stems)
        songs = [
            SongPass(
                self.config,
                estimate,
                sample_rate=pass_rate,
                channels=channels,
                selection=selection,
                overlap=self.overlap,
                extend=self.mask_extension == "top",
                wiener=self.wiener,
                complete=self._ensemble.complete,
                pool=pool,
                device=self.device if self.device.type == "cuda" else torch.device("cpu"),
            )
            for pass_rate in pass_rates(rate, self.passes)
        ]
        return SongPasses(songs) if len(songs) > 1 else songs[0]

    def block_samples(self, sample_rate: int) -> int:
        """Block size in samples that needs the least copying for a stream."""
        config = self.config
        frames = config.segment_frames - round(self.overlap * config.segment_frames)
        return -(-frames * config.hop_length * sample_rate // config.sample_rate)

    def estimate(self, spectrum: Tensor, wanted: Sequence[int] | None = None) -> Tensor:
        """Final masks of one segment, averaged over models and gated; not yet estimates of stems.

        A stereo network processes both channels of stereo jointly; any other number of channels
        is separated channel by channel. See ``mask_exponent`` and ``gate_db`` of the config.

        Parameters
        ----------
        spectrum
            Complex, ``(channels, bins, frames)``.
        wanted
            Indices of the stems to compute; see `InferenceNetwork.forward`.

        Returns
        -------
        Tensor
            ``(stems, channels, bins, frames)``, fp32, on the device of ``spectrum``.
        """
        return self._ensemble.estimate(spectrum, wanted, self.gate_db)


def _check_blocks(blocks: Iterable[Audio]) -> None:
    """Refuse what is no series of blocks."""
    if not isinstance(blocks, Iterable):
        raise ValueError(f"blocks must be arrays that come one by one, got {blocks!r}")
    # Its rows, the channels, would pass for blocks of one channel.
    if isinstance(blocks, (np.ndarray, Tensor)) and blocks.ndim < 3:
        raise ValueError(
            "blocks must be arrays that come one by one, got one array "
            f"{tuple(blocks.shape)}: put it into a list, or use Separator.separate"
        )


def as_overlap(overlap: float) -> float:
    """The share of a segment that neighbours have in common, as a float.

    Raises
    ------
    ValueError
        If it is not a number from 0 to 0.5.
    """
    if not isinstance(overlap, numbers.Real) or not 0 <= overlap <= 0.5:
        raise ValueError(f"overlap must be a number from 0 to 0.5, got {overlap!r}")
    return float(overlap)


def as_count(name: str, count: int, least: int, most: int) -> int:
    """A number of passes or iterations as an int.

    Raises
    ------
    ValueError
        If it is not a whole number from ``least`` to ``most``.
    """
    if not isinstance(count, numbers.Integral) or not least <= count <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {count!r}")
    return int(count)
