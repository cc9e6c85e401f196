"""Decoder of everything else: an ``ffmpeg`` program, read through a pipe."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from ..errors import AudioError
from ..stopwatch import Stopwatch
from ..unfinished import register_undo, unregister_undo
from .channels import LAYOUTS, bits_of, mask_of, named_speakers, places_of
from .chunks import is_joined_mp4
from .decoder import AudioInfo, Block, skip
from .ffmpeg_program import NO_CONSOLE, ffmpeg_command, run_ffmpeg
from .lengths import LengthClaim

# Timeout in seconds for one block of audio; then ffmpeg is stopped.
PATIENCE = 60.0
# Timeout in seconds for scanning a file without decoding. A file of many GB on a slow drive may
# take longer; its length is then unknown.
MEASURE_PATIENCE = 60.0
# Seconds from which on a delay of the sound is reported; encoders delay it by some hundredths.
LEAST_DELAY = 0.1
# Formats that open further files: no upload may name a file of this machine.
LISTS = {"hls", "applehttp", "dash", "concat", "imf", "sdp", "rtsp", "avisynth", "vapoursynth"}
LOSSLESS = r"alac|flac|ape|wavpack|tta|mlp|truehd|shorten|wmalossless|pcm_\w+"
_new_sessions = True


def keep_in_group() -> None:
    """Start ffmpeg in the process group of this program from now on, so that a signal ends both.

    For programs that get no Ctrl-C from a terminal: else ffmpeg would end before they handle it.
    """
    global _new_sessions
    _new_sessions = False


@dataclass(frozen=True)
class SoundTrack:
    """A sound track of a file.

    Parameters
    ----------
    index
        Its number among all streams, from 0.
    language
        As in the file, such as ``eng``, ``en-US`` or ``eng,fra``; empty if unknown.
    is_default
        Whether the file marks it as the track to play.
    text
        ffmpeg's description of its encoding.
    """

    index: int
    language: str
    is_default: bool
    text: str


@dataclass(frozen=True)
class Tracks:
    """The tracks and times of a file, as ffmpeg prints them.

    Parameters
    ----------
    audio
        The sound tracks.
    total
        Number of streams, without cover pictures.
    start, duration
        In seconds, of the whole file. ``duration`` is None if it rounds to zero, or if the
        container does not state it: ffmpeg then guesses, and may give half of it.
    """

    audio: tuple[SoundTrack, ...]
    total: int
    start: float
    duration: float | None

    def choose(self, number: int | None) -> SoundTrack | None:
        """A track by its number from 1, the first default track, or else the first.

        None if there is none.
        """
        if number is not None:
            return self.audio[number - 1] if number <= len(self.audio) else None
        default = (track for track in self.audio if track.is_default)
        return next(default, self.audio[0] if self.audio else None)

    def __str__(self) -> str:
        """The sound tracks by number and, if known, language."""
        tracks = enumerate(self.audio, start=1)
        return ", ".join(f"{number} {track.language}".strip() for number, track in tracks)


def parse_tracks(text: str) -> Tracks:
    """Tracks and times from the output of ``ffmpeg -i FILE``."""
    lines = re.findall(r"^ *Stream #0:(\d+)(?:\[\w+\])?(?:\((.*?)\))?: (\w+): (.*)", text, re.M)
    audio = tuple(
        SoundTrack(int(index), "" if language == "und" else language, "(default)" in line, line)
        for index, language, kind, line in lines
        if kind == "Audio"
    )
    total = sum("(attached pic)" not in line for *_, line in lines)
    # Tags come first and may hold any words; ffmpeg indents them further.
    duration = re.search(r"^  Duration: (\d+):(\d+):([\d.]+)", text, re.M)
    start = re.search(r"^  Duration: .*start: (-?[\d.]+)", text, re.M)
    is_guess = re.search(r"^\[.*\] Estimating duration from bitrate", text, re.M)
    seconds = None
    if duration is not None and not is_guess:
        hours, minutes, fraction = duration.groups()
        # Two decimals: a file shorter than 5 ms has an unknown length, but it has sound.
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(fraction) or None
    return Tracks(audio, total, float(start[1]) if start else 0.0, seconds)


def channel_speakers(text: str, channels: int) -> tuple[int, ...]:
    """Bits of a mask of wav for the channels of a track, in its order, as ffmpeg names them.

    Empty if it does not. Newer versions of ffmpeg may keep an order that is not that of wav.
    """
    layout = re.search(r"\d Hz, (?:\d+ channels \((\w+(?:\+\w+)*)\)|([^,]+))", text)
    if layout is None:
        return ()
    mask = LAYOUTS.get((layout[2] or "").strip(), 0)
    speakers = named_speakers(layout[1]) if layout[1] else bits_of(mask)
    return speakers if len(set(speakers)) == channels else ()


def bit_depth(text: str) -> str:
    """The bit depth that holds a track's samples; 24 if ffmpeg does not tell, as for WavPack."""
    codec = re.match(rf"({LOSSLESS})\b(.*)", text)
    form = codec and re.search(r"\b(u8|s16|s32|flt|dbl)p?\b(?: \((\d+) bit\))?", codec[2])
    if not codec or not form:
        return "24"
    if form[2]:
        return next(depth for depth in ("8", "16", "24", "32") if int(form[2]) <= int(depth))
    if form[1] == "s32":
        return "32" if codec[1].startswith("pcm") else "24"
    return {"u8": "8", "s16": "16", "flt": "32f", "dbl": "64f"}[form[1]]


class FfmpegDecoder:
    """A file that ffmpeg decodes to a pipe, as float AU: a header of known size, no length.

    Parameters
    ----------
    path
        The file.
    ffmpeg
        The program.
    reason
        Why libsndfile cannot read the file, for messages.
    track
        Number of the sound track, from 1; by default the file's default, or else the first.
    """

    HEADER = struct.Struct(">4s5I")
    file_format = ""

    def __init__(self, path: Path, ffmpeg: str, reason: str, track: int | None = None) -> None:
        self._path, self._ffmpeg, self._reason, self._track = path, ffmpeg, reason, track
        self._process: subprocess.Popen[bytes] | None = None
        # Not a pipe: one that is never read would block ffmpeg after 64 KiB of messages.
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._rate, self._channels, self._timed_out = 0, 0, False
        self._silent = True  # until the first samples come
        self.warnings: list[str] = []
        try:
            output = self._probe()
            self._refuse_lists(output)
            tracks = parse_tracks(output)
            sound = tracks.choose(track)
            if sound is None and tracks.audio:
                count = len(tracks.audio)
                words = f"there are {count} ({tracks})" if count > 1 else "there is one"
                raise AudioError(f"{path} has no sound track {track}: {words}")
            # If no track was parsed, ffmpeg finds one, or reports that there is none.
            self._stream = f"0:a:{(track or 1) - 1}" if sound is None else f"0:{sound.index}"
            self._start()
            if track is None and sound is not None and len(tracks.audio) > 1:
                self._warn_of_choice(tracks, sound)
            if is_joined_mp4(path):
                self.warnings.append(
                    f"{path} is several mp4 files joined into one, and players read only the "
                    "first; join them with ffmpeg's concat instead"
                )
            duration = self._duration(tracks, sound)
        except BaseException:
            self.close()
            raise
        frames = None if duration is None else round(duration * self._rate)
        self.length = LengthClaim(frames)
        text = "" if sound is None else sound.text
        speakers = channel_speakers(text, self._channels)
        self._order = places_of(speakers)
        self.info = AudioInfo(
            self._rate, self._channels, frames, bit_depth(text), mask_of(speakers)
        )

    def _warn_of_choice(self, tracks: Tracks, sound: SoundTrack) -> None:
        number = tracks.audio.index(sound) + 1
        self.warnings.append(
            f"{self._path} has {len(tracks.audio)} sound tracks ({tracks}): number {number} was "
            f"read, {'the default' if sound.is_default else 'as none is the default'}; "
            "choose another with --track"
        )

    def _duration(self, tracks: Tracks, sound: SoundTrack | None) -> float | None:
        """Length of the track in seconds: the container states that of its longest."""
        if sound is None or tracks.total == 1:
            return tracks.duration
        measured = self._measure(self._stream)
        if measured is None:
            return None
        begin, end = measured
        if (delay := begin - tracks.start) >= LEAST_DELAY:
            self.warnings.append(
                f"the sound of {self._path} starts at {delay:.2f} s of the video: the stems start "
                "with the sound, and so are earlier than the picture by that much"
            )
        return end - begin

    def _probe(self) -> str:
        """The description of the file by ffmpeg."""
        try:
            return run_ffmpeg(self._ffmpeg, self._path, PATIENCE).stderr.decode(errors="replace")
        except TimeoutError as error:
            raise self._timeout() from error
        except OSError as error:
            raise AudioError(f"{self._ffmpeg} cannot be started: {error.strerror}") from error

    def _refuse_lists(self, output: str) -> None:
        """Refuse a playlist, whatever its suffix."""
        formats = re.search(r"^Input #0, (\S+), from ", output, re.M)
        names = set(formats[1].split(",")) if formats else set()
        if lists := names & LISTS:
            raise AudioError(
                f"{self._path} is a list of other files ({min(lists)}), not audio: "
                "give the files themselves"
            )

    def _measure(self, stream: str) -> tuple[float, float] | None:
        """Time stamps in seconds of the beginning and end of a track, without decoding it."""
        output = ["-map", stream, "-c", "copy", "-copyts", "-f", "framecrc", "pipe:1"]
        try:
            completed = run_ffmpeg(self._ffmpeg, self._path, MEASURE_PATIENCE, *output)
        except OSError:
            return None
        lines = completed.stdout.decode(errors="replace").splitlines()
        unit = next((line.split()[-1] for line in lines if line.startswith("#tb ")), "")
        packets = [line for line in lines if line[:1] not in ("#", "")]
        first, last = ([line.split(",") for line in part] for part in (packets[:32], packets[-32:]))
        try:
            numerator, denominator = map(int, unit.split("/"))
            begin = min(int(packet[2]) for packet in first)
            end = max(int(packet[2]) + int(packet[3]) for packet in last)
        except ValueError:  # no packets, or no time stamps
            return None
        return begin * numerator / denominator, end * numerator / denominator

    def _start(self) -> None:
        output = ["-map", self._stream, "-f", "au", "-c:a", "pcm_f32be", "pipe:1"]
        self._process = subprocess.Popen(
            ffmpeg_command(self._ffmpeg, self._path, *output),
            stdout=subprocess.PIPE,
            stderr=self._messages,
            bufsize=1 << 20,
            start_new_session=_new_sessions,  # without Ctrl-C, which unetsep handles
            creationflags=NO_CONSOLE,
        )
        register_undo(self._process.kill)  # one that hangs would outlive this program
        header = self._read_bytes(self.HEADER.size)
        if len(header) < self.HEADER.size:
            self._fail()
        magic, offset, _, encoding, rate, channels = self.HEADER.unpack(header)
        if (magic, encoding) != (b".snd", 6):
            raise AudioError(f"{self._ffmpeg} gave no AU stream for {self._path}: is it ffmpeg?")
        self._read_bytes(offset - self.HEADER.size)
        self._rate, self._channels = rate, channels

    def _read_bytes(self, size: int) -> bytes:
        """Bytes from ffmpeg; fewer at the end of its output."""
        process = self._process
        assert process is not None
        assert process.stdout is not None

        done = threading.Event()

        def watch() -> None:
            stopwatch = Stopwatch()
            while not done.wait(min(1.0, PATIENCE)):
                if stopwatch.look() >= PATIENCE:
                    self._timed_out = True
                    process.kill()
                    return

        threading.Thread(target=watch, daemon=True).start()
        try:
            data = process.stdout.read(size)
        finally:
            done.set()
        if self._timed_out:
            raise self._timeout()
        return data

    def _timeout(self) -> AudioError:
        return AudioError(
            f"{self._path}: ffmpeg ({self._ffmpeg}) gave no audio within {PATIENCE:g} s and was "
            "stopped; convert the file to wav or flac with another program"
        )

    def _text(self) -> str:
        self._messages.seek(0)
        return self._messages.read(1 << 16).decode(errors="replace").strip()

    def _fail(self) -> NoReturn:
        assert self._process is not None
        self._process.wait()
        lines = self._text().splitlines()
        cause = lines[-1].replace(f"file:{self._path}", "").strip(": ") if lines else "no message"
        if any("matches no streams" in line for line in lines):
            cause = "it has no audio track" + (f" {self._track}" if self._track else "")
        if "unimplemented" in self._reason:
            raise AudioError(
                f"{self._path} holds audio of a kind that neither libsndfile nor this ffmpeg "
                "supports: install a newer ffmpeg, or convert the file to wav or to flac of at "
                "most 24 bits"
            )
        raise AudioError(
            f"{self._path} is not audio that can be read (libsndfile: {self._reason}; "
            f"ffmpeg: {cause})"
        )

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``."""
        assert self._process is not None
        size = 4 * self._channels
        data = self._read_bytes(frames * size)
        data = data[: len(data) // size * size]
        self._silent = self._silent and not data
        if not data:
            if self._process.wait() != 0 or self._silent:
                self._fail()
            if text := self._text():
                self.warnings.append(
                    f"{self._path} is damaged in places; ffmpeg says: {text.splitlines()[0]}"
                )
        block = np.frombuffer(data, dtype=">f4").astype(np.float32).reshape(-1, self._channels)
        return block if self._order is None else block[:, list(self._order)]

    def seek(self, frame: int) -> None:
        """Decode and discard all before a sample: time stamps are not exact to one sample."""
        skip(self.read, frame)

    def at_end(self) -> bool:
        """Always true: ffmpeg's own messages report damage."""
        return True

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            assert process.stdout is not None
            process.stdout.close()
            process.wait()
            unregister_undo(process.kill)

    def close(self) -> None:
        """Stop ffmpeg."""
        self._stop()
        self._messages.close()
