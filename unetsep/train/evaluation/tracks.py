"""Tracks of a MUSDB18 folder, ``.stem.mp4`` or wav, read one at a time for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...audio.reader import AudioReader
from ...config import STEMS
from ...dsp.arrays import Signal
from ...errors import AudioError, check_choice
from ..data.decode import read_audio
from ..data.musdb import (
    HOW_TO_GET,
    STEM_SUFFIX,
    SUBSETS,
    VALID_SONGS,
    read_stem_file,
    song_files,
    song_name,
    song_paths,
)


@dataclass(frozen=True)
class Track:
    """One song of an evaluation; its files are not read yet.

    Parameters
    ----------
    name
        As museval calls it: the file's name without ``.stem.mp4``, or the folder's.
    folder
        Name of that of its results: ``train`` or ``test``, where it lies (validation songs in
        ``train``), ``pairs``, or the split of an index.
    path
        The ``.stem.mp4`` file, or the folder with ``mixture.wav`` and its stems.
    stems
        Whose sum the mixture is.
    named_files
        Of a track that is not MUSDB18's, with names of stems or ``mixture``; see
        `unetsep.train.evaluation.own_songs`. A stem without a file is silent, one with several is
        their sum.
    rest
        The stem that is the mixture minus the others, if it has no file.
    """

    name: str
    folder: str
    path: Path
    stems: tuple[str, ...] = STEMS
    named_files: tuple[tuple[str, Path], ...] = ()
    rest: str = ""

    @property
    def parts(self) -> list[tuple[str, Path]]:
        """All files that are read for this track, with their stems, as `song_files` names them."""
        return list(self.named_files) or sorted(song_files(self.path, self.stems).items())

    @property
    def files(self) -> list[Path]:
        """All files that are read for this track."""
        return [path for _, path in self.parts]

    def sample_rate(self) -> int:
        """In Hz, by the header of a file."""
        return read_rate(self.files[0])


@dataclass(frozen=True)
class TrackAudio:
    """A decoded track.

    Parameters
    ----------
    mixture
        ``(channels, samples)``, float32.
    references
        The true stems, each ``(channels, samples)``.
    sample_rate
        In Hz.
    """

    mixture: Signal
    references: dict[str, Signal]
    sample_rate: int


def find_tracks(root: str | Path, subset: str) -> list[Track]:
    """Tracks of one subset, sorted by name.

    Parameters
    ----------
    root
        Folder that holds ``train/`` and ``test/``.
    subset
        ``train`` (without the 14 songs that musdb sets apart), ``valid`` (those) or ``test``.

    Raises
    ------
    AudioError
        If there are none.
    ValueError
        If ``subset`` is unknown.
    """
    check_choice("subset", subset, SUBSETS)
    folder = "test" if subset == "test" else "train"
    place = Path(root) / folder
    if not place.is_dir():
        raise AudioError(f"{root} has no folder {folder}/: expected a MUSDB18 root; {HOW_TO_GET}")
    tracks = [Track(song_name(path), folder, path) for path in song_paths(place)]
    if subset != "test":
        valid = subset == "valid"
        tracks = [track for track in tracks if (track.name in VALID_SONGS) == valid]
    if not tracks:
        raise AudioError(
            f"{root} holds no {subset} tracks: expected *{STEM_SUFFIX} files, or folders with "
            f"mixture.wav and {', '.join(f'{stem}.wav' for stem in STEMS)}, in {folder}/; "
            f"{HOW_TO_GET}"
        )
    return tracks


def choose_tracks(tracks: list[Track], only: Sequence[str]) -> list[Track]:
    """Some of the tracks, in their order.

    Parameters
    ----------
    tracks
        One or more.
    only
        Names, or parts of names, of the tracks to choose; or one number, to choose that many from
        the first; or nothing, for all.

    Raises
    ------
    AudioError
        If a name is no track's.
    ValueError
        If the number is 0.
    """
    if not only:
        return tracks
    if len(only) == 1 and only[0].isdecimal():
        if int(only[0]) < 1:
            raise ValueError(f"--tracks {only[0]}: expected a number from 1, or parts of names")
        return tracks[: int(only[0])]
    selection: set[Track] = set()
    for text in only:
        matches = [track for track in tracks if text.casefold() in track.name.casefold()]
        if not matches:
            raise AudioError(f"no track is called {text!r}: the first is {tracks[0].name!r}")
        selection.update(matches)
    return [track for track in tracks if track in selection]


def read_track(track: Track, duration: float | None = None) -> TrackAudio:
    """Decode a track, or its beginning.

    Parameters
    ----------
    track
        From `find_tracks`.
    duration
        Seconds to read; default: the whole song.

    Raises
    ------
    AudioError
        If a stem is missing or cannot be decoded, or rates or channels differ.
    """
    if track.named_files:
        return _read_named_files(track, duration)
    if track.path.is_file():
        return _read_stem_file(track, duration)
    files = dict(track.parts)
    names = ("mixture", *track.stems)
    missing = [name for name in names if name not in files]
    if missing:
        raise AudioError(
            f"{track.path} lacks {', '.join(missing)}: expected {len(names)} wav files"
        )
    signals, rates = {}, set()
    for name in names:
        signals[name], rate = read_audio(files[name], duration)
        rates.add(rate)
    if len(rates) > 1 or len({len(signal) for signal in signals.values()}) > 1:
        raise AudioError(f"{track.path}: the files differ in sample rate or channels")
    return _audio(track, signals, rates.pop())


def _audio(track: Track, signals: dict[str, Signal], rate: int) -> TrackAudio:
    samples = min(signal.shape[1] for signal in signals.values())
    cut = {name: signal[:, :samples] for name, signal in signals.items()}
    return TrackAudio(cut["mixture"], {stem: cut[stem] for stem in track.stems}, rate)


def _read_named_files(track: Track, duration: float | None) -> TrackAudio:
    """Stems that may differ in length and channels; a missing mixture or rest is computed."""
    contents = [(name, *read_audio(path, duration)) for name, path in track.named_files]
    rates = {rate for _, _, rate in contents}
    if len(rates) > 1:
        rates_by_name = ", ".join(f"{name} {rate}" for name, _, rate in contents)
        raise AudioError(f"{track.path}: the files differ in sample rate ({rates_by_name} Hz)")
    channels = max(len(signal) for _, signal, _ in contents)
    samples = max(signal.shape[1] for _, signal, _ in contents)
    signals: dict[str, Signal] = {}
    for name, signal, _ in contents:
        if len(signal) not in (1, channels):
            raise AudioError(f"{track.path}: {name} has {len(signal)} channels, others {channels}")
        total = signals.setdefault(name, np.zeros((channels, samples), np.float32))
        total[:, : signal.shape[1]] += signal
    known_stems = [signals[stem] for stem in track.stems if stem in signals]
    stem_sum: Signal = np.asarray(np.sum(known_stems, axis=0, dtype=np.float64), np.float32)
    mixture = signals.get("mixture", stem_sum)
    for stem in track.stems:
        if stem not in signals:  # the rest of a pair, or a stem that is known to be silent
            is_rest = "mixture" in signals and stem == track.rest
            signals[stem] = mixture - stem_sum if is_rest else np.zeros_like(mixture)
    return TrackAudio(mixture, {stem: signals[stem] for stem in track.stems}, rates.pop())


def read_rate(path: Path) -> int:
    """The sample rate of an audio file in Hz."""
    with AudioReader(path) as reader:
        return reader.info.sample_rate


def _read_stem_file(track: Track, duration: float | None) -> TrackAudio:
    """Decode as musdb does: by ffmpeg to 16 bits, which float32 holds exactly."""
    streams, rate = read_stem_file(track.path, duration=duration, ffmpeg_format="s16le")
    # stempeg's axes are (samples, channels).
    signals = {name: stream.T.astype(np.float32) for name, stream in streams.items()}
    return _audio(track, signals, rate)
