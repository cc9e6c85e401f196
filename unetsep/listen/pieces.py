"""The audio of a song as scripts, each with a few seconds of all stems of one model.

A page that is opened from a disk may not read other files, but it may run scripts from its
folder. Each piece is such a script: it passes FLAC of 16 bits, which browsers decode to the
sample, as base64 text to the player.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..audio.reader import AudioReader
from ..audio.writers import quantize
from ..dsp.arrays import Queue, Signal
from ..dsp.resample import resample_blocks
from .overview import Overview, spectrogram_png
from .songs import Song

PIECE_SECONDS = 10
# Decoded, four bytes for each sample of all stems. The player needs up to four pieces (current
# and next, of two models while it switches), and caches as many decoded as fit into 40 MB.
PIECE_BYTES = 24_000_000
BROWSER_RATES = (8000, 192_000)  # Hz, lowest and highest that all browsers play
FLAC_EXACT_RATES = 1 << 16  # Hz: from here on FLAC stores rates in steps of 10 Hz
COLOURS = {
    "vocals": (224, 90, 71),
    "drums": (214, 153, 32),
    "bass": (58, 152, 132),
    "other": (82, 118, 196),
}
MORE_COLOURS = ((150, 99, 178), (97, 150, 62), (196, 92, 138), (70, 150, 180), (140, 120, 100))

ShareProgress = Callable[[float], object]


class StemReader:
    """One stem as blocks of any length, mono or stereo, at the page's sample rate."""

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        self._reader = AudioReader(path)
        self._channels = channels
        blocks = (fold(block, channels) for block in self._reader.blocks())
        self._blocks = resample_blocks(blocks, self._reader.info.sample_rate, sample_rate, channels)
        self._queue: Queue[Signal] = Queue()

    def take(self, samples: int) -> Signal:
        """The next samples, fewer at the end, ``(channels, samples)``."""
        while self._queue.samples < samples:
            block = next(self._blocks, None)
            if block is None:
                break
            self._queue.put(block)
        if not self._queue.samples:
            return np.zeros((self._channels, 0), np.float32)
        return self._queue.take(min(samples, self._queue.samples))

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def fold(block: Signal, channels: int) -> Signal:
    """``(channels, samples)`` as mono or stereo: further odd channels go left, even ones right."""
    if len(block) == channels:
        return block
    if len(block) == 1:
        return np.repeat(block, channels, axis=0)
    return np.stack([block[0::2].mean(axis=0), block[1::2].mean(axis=0)])


def write_song(song: Song, folder: Path, name: str, progress: ShareProgress | None = None) -> None:
    """Write the pieces and pictures of a song, and ``song.js`` that describes them.

    Parameters
    ----------
    song
        Models and their stems.
    folder
        An empty folder.
    name
        Name of the folder in the page.
    progress
        Called with the completed share, 0 to 1.

    Raises
    ------
    AudioError
        If a stem cannot be read.
    """
    sample_rate, channels, expected = common_format(song.files)
    stems = max(len(stems) for stems in song.models.values())
    bytes_per_second = stems * channels * 4 * sample_rate
    seconds = min(PIECE_SECONDS, max(1, PIECE_BYTES // bytes_per_second))
    piece = seconds * sample_rate
    writers = []
    for index, paths in enumerate(song.models.values()):
        overviews = [Overview(sample_rate, expected) for _ in paths]
        writer = _ModelWriter(folder / str(index), f"{name}/{index}", sample_rate, overviews)
        for blocks in aligned(paths.values(), sample_rate, channels, piece):
            writer.push(blocks)
            if progress is not None:
                share = min(1.0, writer.samples / max(expected, 1))
                progress((index + share) / len(song.models))
        writers.append(writer)
    length = max(writer.samples for writer in writers)
    models = []
    for index, (model, paths) in enumerate(song.models.items()):
        writers[index].pad(length, piece, channels)
        stem_data = _finish(paths, writers[index].overviews, folder, str(index))
        models.append({"name": model, "stems": stem_data})
    description = {
        "sampleRate": sample_rate,
        "channels": channels,
        "length": length,
        "piece": piece,
        "models": models,
    }
    (folder / "song.js").write_text(_call(name, description), encoding="ascii")


class _ModelWriter:
    """Writes the pieces of one model, and fills the overviews of its stems."""

    def __init__(
        self, folder: Path, name: str, sample_rate: int, overviews: Sequence[Overview]
    ) -> None:
        folder.mkdir()
        self._folder, self._name, self._sample_rate = folder, name, sample_rate
        self._pieces = 0
        self.overviews = overviews
        self.samples = 0

    def push(self, blocks: Sequence[Signal]) -> None:
        """Write the next piece, a block of each stem."""
        encoded = [encode(block, self._sample_rate) for block in blocks]
        script = _call(f"{self._name}/{self._pieces}", encoded)
        (self._folder / f"{self._pieces}.js").write_text(script, encoding="ascii")
        self._pieces += 1
        self._add_to_overviews(blocks)

    def pad(self, length: int, piece: int, channels: int) -> None:
        """Add silence up to the length of the longest model: all need the same pieces.

        The piece that was the last may stay short: silence follows its end.
        """
        shortfall = max(0, min(self._pieces * piece, length) - self.samples)
        self._add_to_overviews([np.zeros((channels, shortfall), np.float32)] * len(self.overviews))
        while self.samples < length:
            silence = np.zeros((channels, min(piece, length - self.samples)), np.float32)
            self.push([silence] * len(self.overviews))

    def _add_to_overviews(self, blocks: Sequence[Signal]) -> None:
        for overview, block in zip(self.overviews, blocks, strict=True):
            overview.push(block)
        self.samples += blocks[0].shape[-1]


def common_format(files: Iterable[Path]) -> tuple[int, int, int]:
    """Common sample rate and channels, and probable length in samples, of some files."""
    infos = []
    for path in files:
        with AudioReader(path) as reader:
            info = reader.info
            infos.append((info.sample_rate, info.channels, (info.frames or 0) / info.sample_rate))
    rate = _playable(max(rate for rate, _, _ in infos))
    channels = min(2, max(channels for _, channels, _ in infos))
    return rate, channels, round(rate * max(seconds for _, _, seconds in infos))


def _playable(sample_rate: int) -> int:
    """The nearest rate that FLAC can store and browsers play."""
    low, high = BROWSER_RATES
    rate = min(max(sample_rate, low), high)
    return rate if rate < FLAC_EXACT_RATES else rate - rate % 10


def aligned(
    paths: Iterable[Path], sample_rate: int, channels: int, samples: int
) -> Iterator[list[Signal]]:
    """Pieces of all stems, equally long; a shorter stem is padded with silence."""
    with ExitStack() as stack:
        readers = [
            stack.enter_context(closing(StemReader(path, sample_rate, channels))) for path in paths
        ]
        while True:
            blocks = [reader.take(samples) for reader in readers]
            length = max(block.shape[-1] for block in blocks)
            if length == 0:
                return
            yield [np.pad(block, ((0, 0), (0, length - block.shape[-1]))) for block in blocks]


def encode(block: Signal, sample_rate: int) -> list[Any]:
    """FLAC as base64, and the factor that restores its level (1 unless it exceeds full scale)."""
    scale = max(1.0, float(np.abs(block).max()))
    integers = quantize(block.T / scale, "16")
    file = io.BytesIO()
    # The fastest level takes half the time of the default one, and 2% more bytes.
    options = {"format": "FLAC", "subtype": "PCM_16", "compression_level": 0.0}
    soundfile.write(file, integers, sample_rate, **options)
    return [base64.b64encode(file.getvalue()).decode("ascii"), scale]


def colours(names: Iterable[str]) -> list[tuple[int, int, int]]:
    """Red, green and blue of each stem; the usual stems always have the same."""
    more = cycle(MORE_COLOURS)
    return [COLOURS.get(name.lower()) or next(more) for name in names]


def _finish(
    paths: Mapping[str, Path], overviews: Sequence[Overview], folder: Path, model: str
) -> list[dict[str, Any]]:
    """Write the pictures of a model; return what the page needs to know of its stems."""
    for overview in overviews:
        overview.finish()
    loudest = max(float(overview.power.max()) for overview in overviews)
    highest = max(float(overview.peaks.max()) for overview in overviews) or 1.0
    stems = []
    rows = zip(paths, overviews, colours(paths), strict=True)
    for index, (name, overview, colour) in enumerate(rows):
        picture = f"{model}/{index}.png"
        (folder / picture).write_bytes(spectrogram_png(overview.power, loudest, colour))
        peaks = np.round(255 / highest * overview.peaks).astype(np.uint8)
        stems.append(
            {
                "name": name,
                "colour": "#{:02x}{:02x}{:02x}".format(*colour),
                "peaks": base64.b64encode(peaks.tobytes()).decode("ascii"),
                "picture": picture,
            }
        )
    return stems


def _call(name: str, value: object) -> str:
    """A script that passes a value to the player."""
    return f"unetsepData({json.dumps(name)}, {json.dumps(value)});\n"
