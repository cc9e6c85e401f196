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
from ...dsp.arrays import Signal
from ...dsp.spectrogram import StreamingISTFT, StreamingSTFT
from ..librosa_modules import librosa_module
from .stem_sets import rest_of
from .tracks import TrackAudio

Masks = npt.NDArray[np.float32]

# Samples transformed at once, about six seconds.
BLOCK = 262_144
# Added to the masks' numerator and denominator, so that silence is shared out evenly.
EPSILON = 1e-10
# The classical baseline: least distance of a repetition (seconds), the factor by which the voice
# must exceed the repeating background, and where bass ends (Hz).
REPEAT_AFTER = 2.0
VOICE_MARGIN = 2.0
BASS_BELOW = 200.0


def mixture(audio: TrackAudio) -> dict[str, Signal]:
    """The mixture itself as every stem, and as the rest of every stem."""
    rests = map(rest_of, audio.references)
    return dict.fromkeys([*audio.references, *rests], audio.mixture)


def mixture_share(audio: TrackAudio) -> dict[str, Signal]:
    """An equal share of the mixture as every stem: a quarter is SiSEC's MIX."""
    share = audio.mixture / np.float32(len(audio.references))
    return dict.fromkeys(audio.references, share)


def oracle_mask(audio: TrackAudio, power: int) -> dict[str, Signal]:
    """Ratio masks from the true stems, an upper bound for masks with the mixture's phase.

    Stem ``j`` is ``X |S_j|^p / sum_k |S_k|^p`` in each bin and channel; the published
    IRM1 and IRM2 have ``p`` 1 and 2.

    Parameters
    ----------
    audio
        A decoded track.
    power
        The exponent ``p``.
    """
    channels = len(audio.mixture)
    signals = [audio.mixture, *audio.references.values()]
    inverse = _Inverse(audio)
    for spectra in _spectra(np.concatenate(signals)):
        parts = spectra.reshape(len(signals), channels, *spectra.shape[1:])
        weights = parts[1:].abs().pow(power)
        masks = (weights + EPSILON / len(audio.references)) / (weights.sum(dim=0) + EPSILON)
        inverse.push(masks * parts[0])
    return inverse.stems()


def repet_hpss(audio: TrackAudio) -> dict[str, Signal]:
    """A classical separator from librosa's building blocks, without any training.

    What repeats elsewhere in the song is background, what does not is voice (REPET-SIM,
    Rafii and Pardo 2012). The background's percussive part is drums; its harmonic part
    (median filters, Fitzgerald 2010) is bass below 200 Hz and other above. The soft masks add
    up to one.

    Parameters
    ----------
    audio
        A decoded track of MUSDB18.

    Raises
    ------
    ValueError
        If it has other stems.
    """
    if set(audio.references) != set(STEMS):
        raise ValueError(f"repet-hpss gives {', '.join(STEMS)}, not {', '.join(audio.references)}")
    blocks = list(_spectra(audio.mixture))
    magnitude = torch.cat(blocks, dim=-1).abs().mean(dim=0).numpy()  # (bins, frames)
    by_stem = _classical_masks(magnitude, audio.sample_rate)
    masks = np.stack([by_stem[stem] for stem in audio.references]).astype(np.float32)
    inverse, at = _Inverse(audio), 0
    for spectra in blocks:
        part = torch.from_numpy(masks[..., at : at + spectra.shape[-1]])
        inverse.push(part[:, None] * spectra)
        at += spectra.shape[-1]
    return inverse.stems()


def _classical_masks(magnitude: Masks, sample_rate: int) -> dict[str, Masks]:
    """A mask ``(bins, frames)`` for each of MUSDB18's stems."""
    decompose, softmask = librosa_module("decompose"), librosa_module("util").softmask
    bins, frames = magnitude.shape
    background = magnitude
    width = min(int(REPEAT_AFTER * sample_rate / ModelConfig.hop_length), (frames - 1) // 4)
    if width >= 1 and magnitude.any():
        # Silent frames have no direction, and so no nearest neighbours.
        audible = magnitude + np.float32(1e-8) * magnitude.max()
        background = np.minimum(
            magnitude,
            decompose.nn_filter(audible, aggregate=np.median, metric="cosine", width=width),
        )
    voice = softmask(magnitude - background, VOICE_MARGIN * background, power=2, split_zeros=True)
    harmonic, percussive = decompose.hpss(background)
    drums = softmask(percussive, harmonic, power=2, split_zeros=True)
    low = np.arange(bins)[:, None] * sample_rate / ModelConfig.n_fft < BASS_BELOW
    backing, tonal = 1 - voice, 1 - drums
    return {
        "vocals": voice,
        "drums": backing * drums,
        "bass": backing * tonal * low,
        "other": backing * tonal * ~low,
    }


def _spectra(signals: Signal) -> Iterator[Tensor]:
    """Spectra ``(rows, bins, frames)`` of ``(rows, samples)``, block by block."""
    stft = StreamingSTFT(ModelConfig.n_fft, ModelConfig.hop_length)
    for start in range(0, signals.shape[1], BLOCK):
        block = torch.from_numpy(np.ascontiguousarray(signals[:, start : start + BLOCK]))
        yield stft.push(block)
    yield stft.flush()


class _Inverse:
    """Collects the stems' spectra and gives their waveforms, as long as the audio."""

    def __init__(self, audio: TrackAudio) -> None:
        self._istft = StreamingISTFT(ModelConfig.n_fft, ModelConfig.hop_length)
        self._names, self._samples = tuple(audio.references), audio.mixture.shape[1]
        self._waves: list[Tensor] = []

    def push(self, spectra: Tensor) -> None:
        """Take ``(stems, channels, bins, frames)``."""
        if spectra.shape[-1]:
            self._waves.append(self._istft.push(spectra))

    def stems(self) -> dict[str, Signal]:
        """Each stem, ``(channels, samples)``."""
        wave = torch.cat(self._waves, dim=-1)[..., : self._samples].numpy()
        return dict(zip(self._names, wave, strict=True))


BASELINES: dict[str, Callable[[TrackAudio], dict[str, Signal]]] = {
    "mixture": mixture,
    "mixture-4": mixture_share,
    "oracle-1": lambda audio: oracle_mask(audio, 1),
    "oracle-2": lambda audio: oracle_mask(audio, 2),
    "repet-hpss": repet_hpss,
}
# Their names in reports.
LABELS = {
    "mixture": "mixture",
    "mixture-4": "mixture / 4",
    "oracle-1": "oracle mask, power 1",
    "oracle-2": "oracle mask, power 2",
    "repet-hpss": "REPET-SIM + HPSS",
}
