"""The waveform and the spectrogram of a stem, computed from a stream."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from ..dsp.arrays import Signal

COLUMNS = 1600  # as wide as a player on a large screen
MIN_HOP = 512  # samples; short songs get fewer columns
ROWS = 96
LOWEST, HIGHEST = 40.0, 16_000.0  # Hz
WINDOW = 0.093  # s: a semitone apart at 200 Hz
RANGE = 66.0  # dB below the loudest place of all stems, down to which levels are drawn
BATCH = 128  # windows transformed at once: 4 MB


class Overview:
    """Peaks and a log-frequency spectrogram of a stream, in constant memory.

    Parameters
    ----------
    sample_rate
        In Hz.
    samples
        Length of the stream; it may turn out longer or shorter.
    """

    def __init__(self, sample_rate: int, samples: int) -> None:
        self._hop = max(MIN_HOP, -(-samples // COLUMNS))
        self._n_fft = 1 << round(np.log2(WINDOW * sample_rate))
        windows = max(1, self._hop // self._n_fft)
        inside = (np.arange(windows) + 0.5) * self._hop / windows
        self._starts = inside.astype(int)  # of windows, in a signal padded by half a window
        self._window = np.hanning(self._n_fft + 1)[:-1].astype(np.float32)
        self._bands = band_weights(self._n_fft, sample_rate)
        self._mono = np.zeros(self._n_fft // 2, np.float32)
        self._loudest = np.zeros(0, np.float32)
        self._peaks: list[Signal] = []
        self._power: list[Signal] = []

    def push(self, block: Signal) -> None:
        """Append ``(channels, samples)``."""
        self._loudest = np.concatenate([self._loudest, np.abs(block).max(axis=0)])
        columns = len(self._loudest) // self._hop
        if columns:
            complete, self._loudest = np.split(self._loudest, [columns * self._hop])
            self._peaks.append(complete.reshape(columns, self._hop).max(axis=1))
        self._mono = np.concatenate([self._mono, block.mean(axis=0)])
        reach = self._starts[-1] + self._n_fft - self._hop
        self._transform((len(self._mono) - reach) // self._hop)

    def finish(self) -> None:
        """Complete the last column."""
        if len(self._loudest):
            self._peaks.append(self._loudest.max(keepdims=True))
        remaining = len(self.peaks) - sum(len(power) for power in self._power)
        self._mono = np.pad(self._mono, (0, self._hop * (remaining + 1) + self._n_fft))
        self._transform(remaining)

    def _transform(self, columns: int) -> None:
        batch = max(1, BATCH // len(self._starts))
        for begin in range(0, columns, batch):
            count = min(batch, columns - begin)
            places = (begin + np.arange(count))[:, None] * self._hop + self._starts
            frames = sliding_window_view(self._mono, self._n_fft)[places] * self._window
            power = np.square(np.abs(np.fft.rfft(frames))).mean(axis=1)  # (columns, bins)
            self._power.append((power @ self._bands.T).astype(np.float32))
        if columns > 0:
            self._mono = self._mono[columns * self._hop :]

    @property
    def peaks(self) -> Signal:
        """The largest absolute sample of each column, ``(columns,)``."""
        return np.concatenate([np.zeros(0, np.float32), *self._peaks])

    @property
    def power(self) -> Signal:
        """Power of each band, ``(rows, columns)``, low frequencies first."""
        return np.concatenate([np.zeros((0, ROWS), np.float32), *self._power]).T


def band_edges(sample_rate: int) -> npt.NDArray[np.float64]:
    """Frequencies in Hz between which the bands of an `Overview` lie, ``(rows + 1,)``."""
    return np.geomspace(LOWEST, min(HIGHEST, sample_rate / 2.1), ROWS + 1)


def band_weights(n_fft: int, sample_rate: int) -> Signal:
    """Weights ``(rows, bins)`` that gather a power spectrum into bands of equal ratio.

    A band narrower than a bin takes its share of the neighbouring two.
    """
    edges = band_edges(sample_rate) / (sample_rate / n_fft)
    # Bin k reaches from k - 0.5 to k + 0.5; a band takes the part within its edges.
    bins = np.arange(n_fft // 2 + 1)
    upper = np.minimum(edges[1:, None], bins + 0.5)
    lower = np.maximum(edges[:-1, None], bins - 0.5)
    weights: Signal = np.maximum(upper - lower, 0).astype(np.float32)
    return weights


def spectrogram_png(power: Signal, loudest: float, colour: tuple[int, int, int]) -> bytes:
    """A picture whose opacity is the level in dB, for light and dark pages alike.

    Parameters
    ----------
    power
        ``(rows, columns)``, low frequencies first.
    loudest
        Power that is drawn opaque; at `RANGE` dB below, the picture is transparent.
    colour
        Red, green, blue.
    """
    level = 10 * np.log10(np.maximum(power, 1e-20) / max(loudest, 1e-20))
    share = np.clip(1 + level / RANGE, 0, 1)
    pixels = np.round(255 * share**1.7)[::-1].astype(np.uint8)  # quiet places fade early
    return _png(pixels, bytes(colour) * 256, bytes(range(256)))


def _png(pixels: npt.NDArray[np.uint8], palette: bytes, alpha: bytes) -> bytes:
    """A PNG of palette indices ``(rows, columns)``; see the PNG specification, part 5."""
    rows, columns = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0))).tobytes()  # filter 0 before each line
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", palette),
        (b"tRNS", alpha),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        parts.append(struct.pack(">I", len(body)) + kind + body)
        parts.append(struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)
