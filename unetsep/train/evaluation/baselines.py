"""Reference rows that need no training: mixture, oracle ratio masks, REPET-SIM with HPSS.

All masks work at the STFT of the models (`unetsep.dsp.spectrogram`), over the full band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...config import STEMS, ModelConfig
from ...dsp.spectrogram import StreamingISTFT, StreamingSTFT
from .tracks import Recording, Signal

Masks = npt.NDArray[np.float32]

# Samples that are transformed at once, about six seconds.
BLOCK = 262_144
# Added to the masks' numerator and denominator, so that silence is shared out evenly.
EPSILON = 1e-10
# The classical baseline: a repetition is sought at least this far away (seconds), the
# voice must stand out of the repeating background by this factor, and bass ends here (Hz).
REPEAT_AFTER = 2.0
VOICE_MARGIN = 2.0
BASS_BELOW = 200.0


def mixture(recording: Recording) -> dict[str, Signal]:
    """The mixture itself as every stem."""
    return dict.fromkeys(STEMS, recording.mixture)


def mixture_share(recording: Recording) -> dict[str, Signal]:
    """A quarter of the mixture as every stem: what SiSEC published as MIX."""
    return dict.fromkeys(STEMS, recording.mixture / np.float32(len(STEMS)))


def oracle_mask(recording: Recording, power: int) -> dict[str, Signal]:
    """Ratio masks from the true stems, an upper bound for masks with the mixture's phase.

    Stem ``j`` is ``X |S_j|^p / sum_k |S_k|^p`` in each bin and channel; the published
    IRM1 and IRM2 have ``p`` 1 and 2.

    Parameters
    ----------
    recording
        A decoded track.
    power
        The exponent ``p``.
    """
    channels = len(recording.mixture)
    signals = [recording.mixture, *(recording.references[stem] for stem in STEMS)]
    inverse = _Inverse(recording)
    for spectra in _spectra(np.concatenate(signals)):
        parts = spectra.reshape(len(signals), channels, *spectra.shape[1:])
        weights = parts[1:].abs().pow(power)
        masks = (weights + EPSILON / len(STEMS)) / (weights.sum(dim=0) + EPSILON)
        inverse.push(masks * parts[0])
    return inverse.stems()


def repet_hpss(recording: Recording) -> dict[str, Signal]:
    """A classical separator from librosa's building blocks, without any training.

    What repeats elsewhere in the song is background, what does not is voice (REPET-SIM,
    Rafii and Pardo 2012); the background's percussive part is drums, its harmonic part
    (median filters, Fitzgerald 2010) bass below 200 Hz and other above. The soft masks add
    up to one.

    Parameters
    ----------
    recording
        A decoded track.
    """
    blocks = list(_spectra(recording.mixture))
    magnitude = torch.cat(blocks, dim=-1).abs().mean(dim=0).numpy()  # (bins, frames)
    masks = _classical_masks(magnitude, recording.sample_rate)
    inverse, at = _Inverse(recording), 0
    for spectra in blocks:
        some = torch.from_numpy(masks[..., at : at + spectra.shape[-1]])
        inverse.push(some[:, None] * spectra)
        at += spectra.shape[-1]
    return inverse.stems()


def _classical_masks(magnitude: Masks, sample_rate: int) -> Masks:
    """``(stems, bins, frames)`` in the order of `STEMS`."""
    import librosa

    bins, frames = magnitude.shape
    background = magnitude
    width = min(int(REPEAT_AFTER * sample_rate / ModelConfig.hop_length), (frames - 1) // 4)
    if width >= 1 and magnitude.any():
        # Silent frames have no direction, and so no nearest neighbours.
        audible = magnitude + np.float32(1e-8) * magnitude.max()
        background = np.minimum(
            magnitude,
            librosa.decompose.nn_filter(audible, aggregate=np.median, metric="cosine", width=width),
        )
    softmask = librosa.util.softmask
    voice = softmask(magnitude - background, VOICE_MARGIN * background, power=2, split_zeros=True)
    harmonic, percussive = librosa.decompose.hpss(background)
    drums = softmask(percussive, harmonic, power=2, split_zeros=True)
    low = np.arange(bins)[:, None] * sample_rate / ModelConfig.n_fft < BASS_BELOW
    rest, tonal = 1 - voice, 1 - drums
    by_stem = {
        "vocals": voice,
        "drums": rest * drums,
        "bass": rest * tonal * low,
        "other": rest * tonal * ~low,
    }
    return np.stack([by_stem[stem] for stem in STEMS]).astype(np.float32)


def _spectra(signals: Signal) -> Iterator[Tensor]:
    """Spectra ``(rows, bins, frames)`` of ``(rows, samples)``, block by block."""
    stft = StreamingSTFT(ModelConfig.n_fft, ModelConfig.hop_length)
    for start in range(0, signals.shape[1], BLOCK):
        block = torch.from_numpy(np.ascontiguousarray(signals[:, start : start + BLOCK]))
        yield stft.push(block)
    yield stft.flush()


class _Inverse:
    """Collects the stems' spectra and gives their waveforms, as long as the recording."""

    def __init__(self, recording: Recording) -> None:
        self._istft = StreamingISTFT(ModelConfig.n_fft, ModelConfig.hop_length)
        self._samples = recording.mixture.shape[1]
        self._waves: list[Tensor] = []

    def push(self, spectra: Tensor) -> None:
        """Take ``(stems, channels, bins, frames)``."""
        if spectra.shape[-1]:
            self._waves.append(self._istft.push(spectra))

    def stems(self) -> dict[str, Signal]:
        """Each stem, ``(channels, samples)``."""
        wave = torch.cat(self._waves, dim=-1)[..., : self._samples].numpy()
        return dict(zip(STEMS, wave, strict=True))


BASELINES: dict[str, Callable[[Recording], dict[str, Signal]]] = {
    "mixture": mixture,
    "mixture-4": mixture_share,
    "oracle-1": lambda recording: oracle_mask(recording, 1),
    "oracle-2": lambda recording: oracle_mask(recording, 2),
    "repet-hpss": repet_hpss,
}
# How reports call them.
LABELS = {
    "mixture": "mixture",
    "mixture-4": "mixture / 4",
    "oracle-1": "oracle mask, power 1",
    "oracle-2": "oracle mask, power 2",
    "repet-hpss": "REPET-SIM + HPSS",
}
