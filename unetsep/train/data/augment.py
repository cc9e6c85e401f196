"""Varispeed, equaliser, reverb, stereo image and saturation of training clips.

A stem's left and right channels are the real and imaginary part of one signal, whose whole
excerpt is transformed once. Resampling then cuts or pads the spectrum (exactly band-limited),
an equaliser multiplies it by a real curve, reverb by the transform of a noise burst. A second
transform leads back. That costs two transforms for each stem with any set of changes, and is the
same code on CPUs and accelerators. Then the two channels are mixed
and saturated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...network.devices import products
from ..config import TrainConfig
from .recording import SAMPLE_RATE

# Transforms are circular: so many samples at each end, where an excerpt wraps around, are
# dropped. Tails of reverb may wrap around: they sound like those of earlier sounds.
MARGIN = 512
# Equaliser: cosines over the logarithm of frequency between these two; the first is a tilt.
EQ_TERMS, EQ_LOW, EQ_HIGH = 4, 50.0, 16_000.0
# Reverb: seconds until it is 60 dB down, level below the dry sound in dB, noise bursts to
# choose from, and the frequency above which rooms absorb.
DECAY, WET_DB, BURSTS, DAMPING = (0.2, 0.8), (-24.0, -6.0), 16, 4000.0
# Stereo image: angle by which left and right are turned (a quarter of pi makes the centre one
# side), and gain of the sides against the middle.
ANGLE, WIDTH = math.pi / 6, (0.0, 1.5)
# Saturation: tanh of a sound with an RMS level in this range.
DRIVE = (0.2, 1.5)
# Distinguishes the random numbers drawn here from those of `ClipPlanner`, which stay the same
# whether or not clips are augmented.
STREAM, STEREO_STREAM = 0x617567, 0x737472


class Changes(NamedTuple):
    """How the stems of a clip are changed; each array has a row for each stem.

    Parameters
    ----------
    lengths
        Samples that are read and become those of the clip; int64 ``(stems,)``.
    eq
        Amplitudes in dB of the equaliser's cosines; float32 ``(stems, EQ_TERMS)``.
    reverb
        Number of the noise burst, seconds of decay, and gain, 0 for none; float32
        ``(stems, 3)``.
    stereo
        Matrices that left and right are multiplied by; float32 ``(stems, 2, 2)``.
    drive
        RMS level before tanh, 0 for no saturation; float32 ``(stems,)``.
    """

    lengths: Tensor
    eq: Tensor
    reverb: Tensor
    stereo: Tensor
    drive: Tensor

    @classmethod
    def none(cls, stems: int, length: int) -> Changes:
        """No change of excerpts of a length."""
        return cls(
            torch.full((stems,), length),
            torch.zeros(stems, EQ_TERMS),
            torch.zeros(stems, 3),
            torch.eye(2).repeat(stems, 1, 1),
            torch.zeros(stems),
        )


def augments(config: TrainConfig) -> bool:
    """Whether clips are changed at all."""
    shares = (config.eq_db, config.reverb_share, config.stereo_share, config.drive_share)
    return bool(max(speed_ranges(config)) or any(shares))


def speed_ranges(config: TrainConfig) -> tuple[float, float]:
    """By how much speeds vary in random mixtures, and in coherent clips."""
    coherent = config.coherent_varispeed
    return config.varispeed, config.varispeed if coherent is None else coherent


@functools.lru_cache(maxsize=8)
def smooth_lengths(low: float, high: float) -> tuple[int, ...]:
    """Even transform lengths without a prime factor over 7, which are fast.

    From ``low`` to ``high``, which is less than twice as much.
    """
    lengths = []
    for sevens in range(8):
        for fives in range(9):
            for threes in range(13):
                odd = 7**sevens * 5**fives * 3**threes
                twos = max(1, math.ceil(math.log2(low / odd)))
                if low <= odd * 2**twos <= high:
                    lengths.append(odd * 2**twos)
    return tuple(sorted(lengths))


def work_length(samples: int) -> int:
    """Samples of a clip while it is processed: with margins, and fast to transform."""
    least = samples + 2 * MARGIN
    return smooth_lengths(least, 2 * least)[0]


def source_lengths(config: TrainConfig) -> tuple[int, ...]:
    """How many samples may be read for a clip; more of them make it faster and higher."""
    work = work_length(config.clip_samples)
    widest = max(speed_ranges(config))
    return smooth_lengths(work * (1 - widest), work * (1 + widest))


class ChangePlanner:
    """Draws the changes of a clip's stems, only from seed and clip index.

    Parameters
    ----------
    config
        Stems, clip length, seed and strength of each change.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.lengths = np.array(source_lengths(config))

    def draw(self, index: int, coherent: bool) -> Changes:
        """Changes of clip ``index``; ``coherent`` stems keep one speed."""
        config, count = self.config, len(self.config.stems)
        if not augments(config):
            return Changes.none(count, config.clip_samples)
        rng = np.random.default_rng([config.seed, index, STREAM])
        speeds = 1 + speed_ranges(config)[coherent] * rng.uniform(-1, 1, count)
        speeds = np.full(count, speeds[0]) if coherent else speeds
        ideal_lengths = speeds * work_length(config.clip_samples)
        nearest = np.abs(self.lengths - ideal_lengths[:, None]).argmin(axis=1)
        eq = rng.uniform(-config.eq_db, config.eq_db, (count, EQ_TERMS))
        eq /= np.arange(1, EQ_TERMS + 1)
        wet = 10 ** (rng.uniform(*WET_DB, count) / 20) * (rng.random(count) < config.reverb_share)
        reverb = [rng.integers(BURSTS, size=count), rng.uniform(*DECAY, count), wet]
        return Changes(
            torch.from_numpy(self.lengths[nearest]),
            torch.from_numpy(eq.astype(np.float32)),
            torch.from_numpy(np.stack(reverb, axis=1).astype(np.float32)),
            *self._stereo(index),
        )

    def _stereo(self, index: int) -> tuple[Tensor, Tensor]:
        """`Changes.stereo` and `Changes.drive`, from random numbers of their own."""
        config, count = self.config, len(self.config.stems)
        rng = np.random.default_rng([config.seed, index, STEREO_STREAM])
        angles, widths = rng.uniform(-ANGLE, ANGLE, count), rng.uniform(*WIDTH, count)
        turned = rng.random(count) < config.stereo_share
        matrices = [
            stereo_matrix(angle, width) if on else np.eye(2)
            for angle, width, on in zip(angles, widths, turned, strict=True)
        ]
        drive = rng.uniform(*DRIVE, count) * (rng.random(count) < config.drive_share)
        return (
            torch.from_numpy(np.stack(matrices).astype(np.float32)),
            torch.from_numpy(drive.astype(np.float32)),
        )


def stereo_matrix(angle: float, width: float) -> npt.NDArray[np.float64]:
    """Matrix that scales the sides by ``width`` and turns left and right by ``angle``, ``(2, 2)``.

    A sound in the middle keeps its power and moves to one side, all the way at a quarter of pi.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    sides = np.array([[1 + width, 1 - width], [1 - width, 1 + width]]) / 2
    return np.array([[cos, -sin], [sin, cos]]) @ sides


class Augmenter:
    """Applies `Changes` on a device.

    Parameters
    ----------
    samples
        Of a clip.
    device
        Where the excerpts are.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self.samples, self.work = samples, work_length(samples)
        frequencies = torch.arange(self.work // 2 + 1) * (SAMPLE_RATE / self.work)
        octaves = torch.log2(frequencies.clamp(EQ_LOW, EQ_HIGH) / EQ_LOW)
        along = octaves * (math.pi / math.log2(EQ_HIGH / EQ_LOW))
        terms = torch.arange(1, EQ_TERMS + 1)[:, None]
        # (terms, bins); e to the power of it is a gain.
        self.curves = (torch.cos(terms * along) * (math.log(10) / 20)).to(device)
        both = torch.fft.fftfreq(self.work, 1 / SAMPLE_RATE)
        self.damping = (1 + (both / DAMPING).square()).rsqrt().to(device)
        rng = np.random.default_rng(STREAM)
        noise = rng.normal(0, 1, (BURSTS, int(DECAY[1] * SAMPLE_RATE), 2)).astype(np.float32)
        self.bursts = torch.view_as_complex(torch.from_numpy(noise)).to(device)
        self.seconds = (torch.arange(self.bursts.shape[1]) / SAMPLE_RATE).to(device)

    def __call__(self, excerpts: Tensor, changes: Changes) -> Tensor:
        """Changed stems.

        Only the first transform, whose length is the excerpt's own, runs excerpt by excerpt.

        Parameters
        ----------
        excerpts
            int16 or float ``(excerpts, samples, 2)``, on the device. Of each, as many samples
            are used as its row of ``changes.lengths`` says; silence follows a shorter one.
        changes
            A row for each excerpt, in the memory of the CPU, where reading it need not wait for
            the device.

        Returns
        -------
        Tensor
            float32 ``(excerpts, 2, samples)``.
        """
        spectra = self._resample(excerpts, changes.lengths.tolist())
        if bool(changes.eq.any()):
            self._equalise(spectra, changes.eq)
        self._add_rooms(spectra, changes.reverb)
        sounds = torch.view_as_real(torch.fft.ifft(spectra, norm="forward"))
        clips = sounds[:, MARGIN : MARGIN + self.samples]  # (excerpts, samples, 2)
        return self._saturate(self._mix_channels(clips, changes.stereo), changes.drive).mT

    def _resample(self, excerpts: Tensor, lengths: Sequence[int]) -> Tensor:
        """Transforms of excerpts as if each had ``self.work`` samples, ``(excerpts, work)``."""
        stereo = torch.view_as_complex(excerpts.float())
        spectra = stereo.new_empty(len(lengths), self.work)
        parts, places, above = [], [], []
        for excerpt, length, row in zip(stereo, lengths, spectra, strict=True):
            spectrum = torch.fft.fft(excerpt[:length], n=length, norm="forward")
            half = min(length, self.work) // 2
            parts += [spectrum[:half], spectrum[-half:]]
            places += [row[:half], row[-half:]]
            if 2 * half < self.work:
                above.append(row[half:-half])
        torch._foreach_copy_(places, parts)
        if above:
            torch._foreach_zero_(above)
        return spectra

    def _equalise(self, spectra: Tensor, eq: Tensor) -> None:
        """Multiply by the gains of `Changes.eq`."""
        with products("highest"):  # without the rounding of GPU training: these are clips
            decibels = on_device(eq, spectra.device) @ self.curves
        gains, half = decibels.exp_(), self.work // 2  # (excerpts, bins)
        spectra[:, :half] *= gains[:, :-1]
        spectra[:, half:] *= gains[:, 1:].flip(1)

    def _add_rooms(self, spectra: Tensor, reverb: Tensor) -> None:
        """Add the reverb of `Changes.reverb` to the dry sounds."""
        rows = reverb[:, 2].nonzero()[:, 0]
        if len(rows) == 0:
            return
        burst, seconds, wet = reverb[rows].unbind(1)
        rates = (-math.log(1000) / seconds.double()).float()
        bursts, rates, wet = (
            on_device(each, spectra.device) for each in (burst.long(), rates[:, None], wet[:, None])
        )
        rooms = self._rooms(bursts, rates).mul_(wet).add_(1)
        torch._foreach_mul_([spectra[row] for row in rows.tolist()], list(rooms))

    def _rooms(self, bursts: Tensor, rates: Tensor) -> Tensor:
        """Transforms of decaying noise bursts of energy 1, ``(rooms, work)``.

        They are complex, so that a channel's reverb is heard in the other one too, and that of
        a mono recording is stereo.
        """
        responses = self.bursts[bursts] * torch.exp(self.seconds * rates)
        norms = torch.linalg.vector_norm(responses, dim=1, keepdim=True)
        rooms: Tensor = torch.fft.fft(responses, n=self.work)
        return rooms.mul_(self.damping / norms)

    def _mix_channels(self, clips: Tensor, stereo: Tensor) -> Tensor:
        """Clips ``(excerpts, samples, 2)`` whose channels `Changes.stereo` has mixed."""
        if bool((stereo == torch.eye(2)).all()):
            return clips
        with products("highest"):
            return (on_device(stereo, clips.device) @ clips.mT).mT

    def _saturate(self, clips: Tensor, drive: Tensor) -> Tensor:
        """Clips ``(excerpts, samples, 2)`` through tanh, in place, at the level that they had."""
        rows = drive.nonzero()[:, 0]
        if len(rows) == 0:
            return clips
        amounts, places = (on_device(each, clips.device) for each in (drive[rows], rows))
        driven = clips if len(rows) == len(clips) else clips[places]
        level = rms(driven)
        bent = torch.tanh(driven * (amounts[:, None, None] / level))
        return clips.index_copy_(0, places, bent.mul_(level / rms(bent)))


def rms(clips: Tensor) -> Tensor:
    """RMS of all samples of each clip ``(clips, samples, 2)``, never 0: ``(clips, 1, 1)``."""
    # `torch.linalg.vector_norm` is faster, but 4e-6 off.
    return clips.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-8)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor in a device's memory; with CUDA without waiting.

    CUDA copies by itself only from pinned memory. Apple's GPU would read memory that may belong to
    another tensor by then (pytorch issue 189690).
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
