"""Writing stems: one gain against clipping, and no incomplete files.

Stems are streamed to temporary files beside their targets, and renamed when all of them are
complete. Only then is it known whether a stem exceeds full scale, so that all need one common
gain.

So integer and lossy formats are streamed to spools first. A spool holds integers as the file
will store them: a gain is rarely needed, and then the spool of a wav file becomes that file. The
first block beyond full scale opens a second spool, of floats. Samples in both spools are rounded
to the bit depth, and after a gain they are rounded again: in 16 bits the errors are -98 dB
together, instead of -101 dB. Without rounding in the second spool, bytes would depend on the
division of a song into blocks, and so on the number of threads. 8 bits, where double rounding
could be heard, and lossy formats, which do not round, use spools of floats only.
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
from ..storage import REMOVALS, MadeFolders
from ..unfinished import as_they_end, register_undo, uninterrupted, unregister_undo
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
    """The output files of one song: written as a stream, renamed when all are complete.

    Use as a context manager; on exit without `commit` all files are removed.

    Parameters
    ----------
    targets
        Path of each stem, in the order of the stems.
    output
        Format of all of them.
    info
        Sample rate, channels and tags.
    names
        Names of the stems, for tags and for formats that hold all of them in one file.
    overwrite
        Whether to replace files that exist when the stems are complete.
    stop
        Once it is set, `commit` raises `CancelledError`, unless the files are being renamed.

    Raises
    ------
    AudioError
        From any method, if a write fails; the message names the reason and the place.
    """

    def __init__(
        self,
        targets: Sequence[Path],
        output: OutputFormat,
        info: AudioInfo,
        *,
        names: Sequence[str] = (),
        overwrite: bool = True,
        stop: threading.Event | None = None,
    ) -> None:
        self.paths, self._output, self._info = tuple(targets), output, info
        self._labels = [stem_label(name) for name in names]
        self._together = CONTAINERS[output.container].together
        self._overwrite, self._peak = overwrite, 0.0
        self._frames = 0  # written so far, of one channel
        self._spool_depth = output.bit_depth if output.bit_depth in INTEGERS else "32f"
        self._staging: Staging | None = None
        self._parts: list[Path] = []
        self._spools: list[list[Path]] = []  # for each stem: one, or integers and then floats
        self._writers: list[Writer] = []
        self._folders = MadeFolders()
        self._failed = threading.Event()
        self.has_replaced = False  # stays True if the commit fails later
        self._stop = stop or threading.Event()

    def __enter__(self) -> StemFiles:
        register_undo(self._discard)
        try:
            with explain_writing(self.paths[0].parent):
                self._open()
        except BaseException:
            self._discard()
            raise
        return self

    def _open(self) -> None:
        check_stems(self._output.container, self._labels)
        folders = [target.parent for target in self.paths]
        for folder in folders:
            self._folders.make(folder)
        self._check_targets()
        with uninterrupted():
            staging = self._staging = self._lock(folders)
        self._parts = [staging.name(path, i, ".part") for i, path in enumerate(self._targets)]
        if self._output.is_float:
            for part in self._parts:
                self._writers.append(open_writer(part, self._output, self._info))
            return
        self._spools = [[staging.name(path, i, ".spool")] for i, path in enumerate(self.paths)]
        for (spool,) in self._spools:
            self._writers.append(WavWriter(spool, self._spool_depth, self._info))

    def _lock(self, folders: Sequence[Path]) -> Staging:
        """Lock the folders; those that another run removes before are created again."""
        for _ in range(REMOVALS):
            with contextlib.suppress(FileNotFoundError):
                return Staging(folders)
            for folder in folders:
                self._folders.make(folder)
        return Staging(folders)

    def write(self, block: Block) -> None:
        """Append ``(stems, channels, samples)``."""
        if not block.size:
            return
        self._frames += block.shape[2]
        self._peak = max(self._peak, float(block.max()), -float(block.min()))
        if self._together:  # the file also holds the sum of the stems
            self._peak = max(self._peak, float(np.abs(block.sum(axis=0)).max()))
        with explain_writing(self.paths[0].parent):
            if self._peak > 1 and not self._widened:
                self._widen()
            prepare = round_to if self._widened else quantize
            for writer, stem in zip(self._writers, block, strict=True):
                writer.write(prepare(stem.T, self._spool_depth))

    @property
    def write_integers(self) -> WriteIntegers | None:
        """A function that appends ``(stems, samples, channels)`` as quantized to 16 bits.

        It has the effect of `write` with the samples before `quantize`, none of which may exceed
        full scale. None for other bit depths.
        """
        return self._write_integers if self._output.bit_depth == "16" else None

    def _write_integers(self, block: Integers) -> None:
        self._frames += block.shape[1]
        with explain_writing(self.paths[0].parent):
            for writer, stem in zip(self._writers, block, strict=True):
                writer.write(stem / np.float32(32768) if self._widened else stem)

    @property
    def _widened(self) -> bool:
        """Whether the current spools can hold samples beyond full scale."""
        return self._spool_depth == "32f" or len(self._spools[0]) > 1

    def _widen(self) -> None:
        """Continue with spools of floats."""
        self._close()
        for spools in self._spools:
            spools.append(spools[0].with_name(f"{spools[0].stem}-wide.spool"))
            self._writers.append(WavWriter(spools[-1], "32f", self._info))

    def commit(self) -> float:
        """Complete all files and rename them to their targets.

        Returns
        -------
        float
            The gain that was applied to all stems, 1.0 unless one exceeded full scale.

        Raises
        ------
        AudioError
            If a write fails, or a target exists by now and must not be replaced; then no new
            target remains.
        CancelledError
            If ``stop`` was set.
        """
        gain = 1.0
        with explain_writing(self.paths[0].parent):
            self._close()
            if not self._output.is_float:
                if self._peak > 1.0:
                    gain = (1 - 2.0**-15) / self._peak
                self._convert_all(gain)
            if self._info.tags and self._labels and not self._stopping:
                self._tag()
            if self._stop.is_set():
                raise CancelledError(f"{self.paths[0].parent}: writing was cancelled")
            self.before_naming(self._parts)
            self._publish()
        return gain

    def before_naming(self, files: Sequence[Path]) -> None:
        """Called by `commit` with the complete files before it renames them; may prevent it.

        Raises
        ------
        AudioError
            If the files must not get their names.
        """

    def _convert_all(self, gain: float) -> None:
        """Encode the spools in the output format."""
        if self._together:
            from .ffmpeg_writer import write_stem_mp4

            spools = {
                label: spool for label, (spool,) in zip(self._labels, self._spools, strict=True)
            }
            assert self._staging is not None
            mix = self._staging.name(self.paths[0], 0, "-mix.spool")
            self._spools.append([mix])  # to be removed with the others
            write_stem_mp4(self._parts[0], mix, spools, self._output.bitrate, gain, self._stop)
            return
        convert = functools.partial(self._convert, gain=gain)
        with ThreadPoolExecutor(max_workers=2) as pool:
            try:
                running = [
                    pool.submit(convert, *paths)
                    for paths in zip(self._spools, self._parts, strict=True)
                ]
                for future in as_they_end(running):
                    future.result()
            except BaseException:  # Ctrl-C must not wait while hours of mp3 are encoded
                self._failed.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _tag(self) -> None:
        """Write the song's tags into each file, with the stem in the title."""
        tags = self._info.tags
        if self._together:
            write_tags(self._parts[0], self._output.container, tags)
            return
        for part, label in zip(self._parts, self._labels, strict=True):
            write_tags(part, self._output.container, tags.of_stem(label))

    @property
    def _stopping(self) -> bool:
        """Whether to stop encoding: another stem failed, or ``stop`` was set."""
        return self._failed.is_set() or self._stop.is_set()

    def _convert(self, spools: Sequence[Path], part: Path, *, gain: float) -> None:
        """Encode a stem's file from its spools, and remove them."""
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
        """Blocks of the spools, ``(samples, channels)``; floats hold integers exactly."""
        for spool in spools:
            with soundfile.SoundFile(native_name(spool)) as file:
                while not self._stopping:
                    block = file.read(CONVERT_FRAMES, dtype=dtype, always_2d=True)
                    if not len(block):
                        break
                    yield block

    @property
    def _targets(self) -> Sequence[Path]:
        """The paths of the files: only one if it holds all stems."""
        return self.paths[:1] if self._together else self.paths

    def _publish(self) -> None:
        """Rename all files to their targets, or none."""
        new_targets: list[Path] = []
        self._check_targets()  # before the first is replaced
        try:
            with uninterrupted():  # else some stems could be new and some old
                for part, target in zip(self._parts, self._targets, strict=True):
                    if self._overwrite:
                        _replace(part, target)
                        self.has_replaced = True
                    else:
                        _rename_new(part, target)
                        new_targets.append(target)
        except BaseException as error:
            for path in new_targets:
                with contextlib.suppress(OSError):
                    path.unlink()
            self.has_replaced |= any(map(os.path.lexists, new_targets))
            if isinstance(error, FileExistsError):
                raise AudioError(
                    f"{target} appeared while its song was being separated, written by another "
                    "program: nothing was replaced; use --overwrite or --skip-existing"
                ) from error
            raise

    def _check_targets(self) -> None:
        """Raise if a target cannot be replaced, or its path is too long."""
        for target in self._targets:
            check_replaceable(target)

    def _close(self) -> None:
        while self._writers:
            self._writers.pop().close()

    def _discard(self) -> None:
        with uninterrupted():
            self._remove_temporary()
            unregister_undo(self._discard)

    def _remove_temporary(self) -> None:
        while self._writers:
            with contextlib.suppress(OSError, soundfile.SoundFileError, AudioError):
                self._writers.pop().close()
        remaining = [p for p in (*self._parts, *itertools.chain(*self._spools)) if not _remove(p)]
        if self._staging is not None:
            self._staging.release(keep=bool(remaining))
        self._folders.remove()

    def __exit__(self, *_: object) -> None:
        self._discard()  # after a commit only the locks remain to be removed


def _remove(path: Path) -> bool:
    """Remove a file; return whether it no longer exists."""
    try:
        path.unlink()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return True


def _replace(part: Path, target: Path) -> None:
    """Rename, replacing a file of that name."""
    file = part.stat()
    try:
        part.replace(target)
    except OSError:
        if not _is_at(target, file):
            raise


def _rename_new(part: Path, target: Path) -> None:
    """Rename without replacing a file, not even one that was created meanwhile."""
    file = part.stat()
    try:
        os.link(part, target)
    except OSError as error:
        if not _is_at(target, file):
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
            # No hard links on this drive: a tiny gap between check and rename remains.
            part.rename(target)
            return
    _remove(part)  # if that fails, `_discard` retries


def _is_at(target: Path, file: os.stat_result) -> bool:
    """Whether a file was renamed to a target although the call failed.

    A network drive may lose the server's answer to a successful call, and retry it. Without file
    numbers, as on some drives of Windows, this cannot be told: the result is False.
    """
    with contextlib.suppress(OSError):
        return bool(file.st_ino) and os.path.samestat(target.stat(), file)
    return False
