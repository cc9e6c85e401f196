"""Writing stems: one gain against clipping, and nothing half-written.

Stems are streamed to temporary files beside their targets and get their names only when
all of them are complete. Only then is it known whether a stem exceeds full scale, and whether
one common gain must be applied to all.

So integer and lossy formats are streamed to spools. Integers go there as they will be stored:
nearly always no gain is needed, and the spool of a wav file is that file. The first block
beyond full scale opens a second spool, of floats. What a gain is applied to has been rounded to
the bit depth in either spool, and is rounded again: in 16 bits errors of -98 dB together,
instead of -101 dB. Were the second spool not rounded, bytes would depend on how a song is
divided in blocks, and so on the number of threads. Spools of floats alone have 8 bits, where
that could be heard, and lossy formats, which do not round.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from ..errors import AudioError, CancelledError
from ..storage import MadeFolders
from ..unfinished import as_they_end, begin, end, uninterrupted
from .decoder import AudioInfo, Block
from .formats import CONTAINERS, OutputFormat, check_stems, open_writer
from .libsndfile import native_name
from .staging import Staging
from .tag_writers import write_tags
from .tags import stem_label
from .targets import check_replaceable, explain_writing
from .writers import STORED, Integers, WavWriter, Writer, quantize, round_to

WriteIntegers = Callable[[Integers], None]
CONVERT_FRAMES = 1 << 18
# Bit depths whose spools hold integers.
INTEGERS = ("16", "24", "32")


class StemFiles:
    """The output files of one song: written as a stream, named only when all are complete.

    Use as a context manager; leaving it without `commit` removes every trace.

    Parameters
    ----------
    targets
        Where each stem goes, in the order of the stems.
    output
        Format of all of them.
    info
        Sample rate, channels and tags.
    names
        Of the stems, for tags and for formats that hold all of them in one file.
    overwrite
        Whether files that exist when the stems are complete are replaced.
    before_naming
        Called with the complete files before they get their names; an error there stops it.
    stop
        Once it is set, `commit` gives up until the files get their names.

    Raises
    ------
    AudioError
        From any method, if the system would not write; the message says why and where.
    """

    def __init__(
        self,
        targets: Sequence[Path],
        output: OutputFormat,
        info: AudioInfo,
        *,
        names: Sequence[str] = (),
        overwrite: bool = True,
        before_naming: Callable[[Sequence[Path]], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.paths, self._output, self._info = tuple(targets), output, info
        self._labels = [stem_label(name) for name in names]
        self._together = CONTAINERS[output.container].together
        self._before_naming = before_naming
        self._overwrite, self._peak = overwrite, 0.0
        self._spool_depth = output.bit_depth if output.bit_depth in INTEGERS else "32f"
        self._staging: Staging | None = None
        self._parts: list[Path] = []
        self._spools: list[list[Path]] = []  # of each stem; one, or integers and then floats
        self._writers: list[Writer] = []
        self._folders = MadeFolders()
        self._committed, self._failed = False, threading.Event()
        self.has_replaced = False  # which a commit that fails does not take back
        self._stop = stop or threading.Event()

    def __enter__(self) -> StemFiles:
        begin(self._discard)
        try:
            with explain_writing(self.paths[0].parent):
                self._begin()
        except BaseException:
            self._discard()
            raise
        return self

    def _begin(self) -> None:
        check_stems(self._output.container, self._labels)
        folders = [target.parent for target in self.paths]
        for folder in folders:
            self._folders.make(folder)
        self._check_targets()
        with uninterrupted():
            staging = self._staging = Staging(folders)
        self._parts = [staging.name(path, i, ".part") for i, path in enumerate(self._targets)]
        if self._output.is_float:
            for part in self._parts:
                self._writers.append(open_writer(part, self._output, self._info))
            return
        self._spools = [[staging.name(path, i, ".spool")] for i, path in enumerate(self.paths)]
        for (spool,) in self._spools:
            self._writers.append(WavWriter(spool, self._spool_depth, self._info))

    def write(self, block: Block) -> None:
        """Append ``(stems, channels, samples)``."""
        if not block.size:
            return
        self._peak = max(self._peak, float(block.max()), -float(block.min()))
        if self._together:  # beside the stems there is their sum
            self._peak = max(self._peak, float(np.abs(block.sum(axis=0)).max()))
        with explain_writing(self.paths[0].parent):
            if self._peak > 1 and not self._widened:
                self._widen()
            prepare = round_to if self._widened else quantize
            for writer, stem in zip(self._writers, block, strict=True):
                writer.write(prepare(stem.T, self._spool_depth))

    @property
    def write_integers(self) -> WriteIntegers | None:
        """What appends ``(stems, samples, channels)`` as `quantize` makes them of 16 bits.

        It is the same as to `write` the samples that they were made of, none of which may have
        been beyond full scale. None if other formats are written.
        """
        return self._write_integers if self._output.bit_depth == "16" else None

    def _write_integers(self, block: Integers) -> None:
        with explain_writing(self.paths[0].parent):
            for writer, stem in zip(self._writers, block, strict=True):
                writer.write(stem / np.float32(32768) if self._widened else stem)

    @property
    def _widened(self) -> bool:
        """Whether what is written now can be beyond full scale."""
        return self._spool_depth == "32f" or len(self._spools[0]) > 1

    def _widen(self) -> None:
        """Go on with spools of floats."""
        self._close()
        for spools in self._spools:
            spools.append(spools[0].with_name(f"{spools[0].stem}-wide.spool"))
            self._writers.append(WavWriter(spools[-1], "32f", self._info))

    def commit(self) -> float:
        """Complete all files and give them their names.

        Returns
        -------
        float
            The gain that was applied to all stems, 1.0 unless one exceeded full scale.

        Raises
        ------
        AudioError
            If something could not be written, or a target exists by now and must not be
            replaced; no target is left then.
        CancelledError
            If that was stopped.
        """
        gain = 1.0
        with explain_writing(self.paths[0].parent):
            self._close()
            if not self._output.is_float:
                if self._peak > 1.0:
                    gain = (1 - 2.0**-15) / self._peak
                self._convert_all(gain)
            if self._info.tags and self._labels and not self._ends:
                self._tag()
            if self._stop.is_set():
                raise CancelledError(f"{self.paths[0].parent}: writing was cancelled")
            if self._before_naming:
                self._before_naming(self._parts)
            self._publish()
        self._committed = True
        return gain

    def _convert_all(self, gain: float) -> None:
        """What was streamed as float, in the format that was asked for."""
        if self._together:
            from .ffmpeg_writer import write_stem_mp4

            spools = {
                label: spool for label, (spool,) in zip(self._labels, self._spools, strict=True)
            }
            assert self._staging is not None
            mix = self._staging.name(self.paths[0], 0, "-mix.spool")
            self._spools.append([mix])  # which vanishes with the others
            write_stem_mp4(self._parts[0], mix, spools, self._output.bitrate, gain, self._stop)
            return
        convert = functools.partial(self._convert, gain=gain)
        with ThreadPoolExecutor(max_workers=2) as pool:
            try:
                running = [
                    pool.submit(convert, *each)
                    for each in zip(self._spools, self._parts, strict=True)
                ]
                for ended in as_they_end(running):
                    ended.result()
            except BaseException:  # Ctrl-C must not wait for hours of mp3
                self._failed.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _tag(self) -> None:
        """Give each file the song's tags, with its stem in the title."""
        tags = self._info.tags
        if self._together:
            write_tags(self._parts[0], self._output.container, tags)
            return
        for part, label in zip(self._parts, self._labels, strict=True):
            write_tags(part, self._output.container, tags.of_stem(label))

    @property
    def _ends(self) -> bool:
        """Whether there is no use in going on: another stem failed, or the song is to end."""
        return self._failed.is_set() or self._stop.is_set()

    def _convert(self, spools: Sequence[Path], part: Path, *, gain: float) -> None:
        """Make a stem's file of its spools, which vanish."""
        depth = self._output.bit_depth
        as_stored = gain == 1 and depth == self._spool_depth
        if as_stored and self._output.container == "wav":
            spools[0].replace(part)
            return
        dtype = STORED[self._spool_depth].name if as_stored else "float32"
        writer = open_writer(part, self._output, self._info)
        try:
            for block in self._read(spools, dtype):
                writer.write(block if as_stored else quantize(block * np.float32(gain), depth))
        finally:
            writer.close()
        for spool in spools:
            spool.unlink()

    def _read(self, spools: Sequence[Path], dtype: str) -> Iterator[Block | Integers]:
        """What was written, ``(samples, channels)``; floats hold integers exactly."""
        for spool in spools:
            with soundfile.SoundFile(native_name(spool)) as file:
                while not self._ends:
                    block = file.read(CONVERT_FRAMES, dtype=dtype, always_2d=True)
                    if not len(block):
                        break
                    yield block

    @property
    def _targets(self) -> Sequence[Path]:
        """The files, each once."""
        return self.paths[:1] if self._together else self.paths

    def _publish(self) -> None:
        """Give all files their names, or none."""
        done: list[Path] = []
        self._check_targets()  # before the first is replaced
        try:
            with uninterrupted():  # or some stems would be new and some old
                for part, target in zip(self._parts, self._targets, strict=True):
                    if self._overwrite:
                        _replace(part, target)
                        self.has_replaced = True
                    else:
                        _rename_new(part, target)
                        done.append(target)
        except BaseException as error:
            for path in done:
                with contextlib.suppress(OSError):
                    path.unlink()
            self.has_replaced |= any(map(os.path.lexists, done))
            if isinstance(error, FileExistsError):
                raise AudioError(
                    f"{target} appeared while its song was being separated, written by another "
                    "program: nothing was replaced; use --overwrite or --skip-existing"
                ) from error
            raise

    def _check_targets(self) -> None:
        """Raise if a stem cannot get its name: something that is no file has it, or it is long."""
        for target in self._targets:
            check_replaceable(target)

    def _close(self) -> None:
        while self._writers:
            self._writers.pop().close()

    def _discard(self) -> None:
        with uninterrupted():
            self._remove_temporary()
            end(self._discard)

    def _remove_temporary(self) -> None:
        while self._writers:
            with contextlib.suppress(OSError, soundfile.SoundFileError, AudioError):
                self._writers.pop().close()
        left = [p for p in (*self._parts, *itertools.chain(*self._spools)) if not _remove(p)]
        if self._staging is not None:
            self._staging.release(keep=bool(left))
        if not self._committed:
            self._folders.remove()

    def __exit__(self, *_: object) -> None:
        self._discard()  # after a commit nothing but the locks is left to remove


def _remove(path: Path) -> bool:
    """Remove a file; whether it is gone."""
    try:
        path.unlink()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return True


def _replace(part: Path, target: Path) -> None:
    """Rename, in the place of what has the name."""
    file = part.stat()
    try:
        part.replace(target)
    except OSError:
        if not _is_at(target, file):
            raise


def _rename_new(part: Path, target: Path) -> None:
    """Rename without ever replacing a file that came into being meanwhile."""
    file = part.stat()
    try:
        os.link(part, target)
    except OSError as error:
        if not _is_at(target, file):
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
            # No hard links here: a tiny gap between looking and renaming remains.
            part.rename(target)
            return
    _remove(part)  # if it stays, that is tried once more in the end


def _is_at(target: Path, file: os.stat_result) -> bool:
    """Whether a file has a name although that failed.

    A network drive may lose the answer of the server, which has done it, and ask once more. Where
    files have no numbers, as on some drives of Windows, nothing tells.
    """
    with contextlib.suppress(OSError):
        return bool(file.st_ino) and os.path.samestat(target.stat(), file)
    return False
