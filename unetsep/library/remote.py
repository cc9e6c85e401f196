"""Songs and stems at URLs: fetched and uploaded song by song.

A song is fetched into a spool, a folder for a time, separated there as any other, and its stems
are uploaded (`stem_uploads`). Buckets know no locks, and so there are no claims: shards, or an
engine, give each song to one command.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from ..audio.decoder import AUDIO_SUFFIXES
from ..audio.tags import Tags
from ..errors import UnetsepError, WritingError
from ..files import FileOptions
from ..inputs import NO_AUDIO, STEMS_ALONE, Input, track_name
from ..storage import FULL, PREFIX
from ..unfinished import begin, end
from .claims import STALE, Claim, ClaimedError
from .log import PATTERN, RunLog
from .records import RECORD_PATTERN, InputFile, parse_entries
from .songs import Job, Part, Shared
from .stem_uploads import SpooledRecord, StemUpload
from .store import (
    LOCAL,
    READ_ONLY,
    Store,
    TransferError,
    UrlPath,
    last_name,
    modified,
    public_url,
    split_links,
    split_url,
    url_below,
    version_of,
)

# How many records are read at a time.
READERS = 16
# Seconds between uploads of a log that grows.
LOG_EVERY = 60.0
# What folders of spools are called, and the claim in each.
SPOOL = "unetsep-"
MARK = f"{PREFIX}spool.lock"


class RemoteInput(InputFile):
    """A song at a URL, fetched when its content is needed.

    Parameters
    ----------
    url
        Where it is.
    path
        Where it will be.
    """

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(path)
        self._url, self._fetched = url, False

    @functools.cached_property
    def _store(self) -> Store:
        return Store(self._url)

    @functools.cached_property
    def _info(self) -> dict[str, Any]:
        return self._store.info()

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """URL, size, time and version: what can be had without fetching it."""
        size = self._info.get("size")
        return {
            "path": public_url(self._url),
            "bytes": self.fetch().stat().st_size if size is None else size,
            "time_ns": int((modified(self._info) or 0) * 1e9),
            "version": version_of(self._info),
        }

    def is_that_of(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry's input has the same content."""
        same = all(entry.get(name) == value for name, value in self.facts.items())
        if same and self.facts["version"]:
            return True
        if entry.get("bytes") != self.facts["bytes"]:
            return False
        self.fetch()
        return entry.get("sha256") == self.sha256

    @property
    def here(self) -> bool:
        """Whether it was fetched."""
        return self._fetched

    @functools.cached_property
    def tags(self) -> Tags:
        """What it says of itself; nothing if it was not fetched."""
        return super().tags if self._fetched else Tags()

    def fetch(self) -> Path:
        """The file, downloaded the first time."""
        if not self._fetched:
            try:
                self._store.fetch(self._path, self._info)
            except TransferError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno in FULL:  # the disk here
                    raise OSError(cause.errno, cause.strerror, str(self._path)) from error
                raise
            self._fetched = True
            _ = self.tags, self.sha256  # which outlive the file
        return self._path


@dataclass(frozen=True)
class RemoteJob(Job):
    """A song that is fetched, or whose stems are uploaded, or both.

    Parameters
    ----------
    spool
        What knows the URLs of its files.
    url
        Of the song; None if it is a file.
    """

    spool: Spool = field(kw_only=True)
    url: str | None = field(kw_only=True)

    @functools.cached_property
    def _input_file(self) -> InputFile:
        if self.url is None:
            return InputFile(self.song.path)
        return RemoteInput(self.url, self.song.path)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.spool.display(str(self.song.path)).rpartition("/")[2]

    def input_file(self) -> InputFile:
        """The song, the same whenever it is asked for."""
        return self._input_file

    @contextlib.contextmanager
    def at_hand(self, options: FileOptions, shared: Shared) -> Iterator[None]:
        """Bring what is there of the stems; afterwards upload them, and leave nothing here."""
        stores = self.spool.output
        uploads = (
            [StemUpload(part, stores, self.spool.out) for part in self.parts] if stores else []
        )
        try:
            with self.spool.explaining():
                for upload in uploads:
                    upload.prepare()
                yield
                for upload in uploads:
                    if upload.is_new:
                        upload.run(overwrite=options.overwrite, shared=shared)
        finally:
            for upload in uploads:
                upload.clear()
            if self.url is not None:
                shutil.rmtree(self.song.path.parent, ignore_errors=True)

    def place(self, path: Path) -> Path:
        """A path, or the URL that a file of the spool stands for."""
        return super().place(self.spool.place(path))

    def text(self, text: str) -> str:
        """A sentence with URLs in the place of files of the spool."""
        return super().text(self.spool.display(text))


class Spool:
    """Where songs and stems of URLs lie for a while; use as a context manager.

    Parameters
    ----------
    output
        URL of the folder of the stems; None if they stay here.

    Raises
    ------
    UnetsepError
        If nothing can be written at that URL.
    """

    def __init__(self, output: str | None) -> None:
        self.output = None if output is None else Store(output)
        if self.output and self.output.scheme in READ_ONLY:
            raise UnetsepError(f"{self.output.url} cannot be written to: name a bucket or a folder")
        if self.output:
            self.output.check_bucket()
        self._songs: dict[Path, str] = {}

    def __enter__(self) -> Spool:
        self._held = contextlib.ExitStack()
        self._temporary = tempfile.TemporaryDirectory(prefix=SPOOL)
        begin(self._temporary.cleanup)
        self.folder = Path(self._held.enter_context(self._temporary))
        _remove_dead(self.folder.parent)
        self._held.enter_context(Claim([self.folder / MARK]))
        self.out = self.folder / "out"
        inner = re.escape(f"{self.folder / 'in'}{os.sep}")
        self._spooled = re.compile(inner + r"\d+" + re.escape(os.sep) + r"song(?:\.\w+)?")
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
        end(self._temporary.cleanup)

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Errors of the disk that the spool is on name that, and no store, which may have room.

        Raises
        ------
        UnetsepError
            In their place.
        """
        try:
            yield
        except (OSError, WritingError) as error:
            named, why = (
                (error.folder, error.reason)
                if isinstance(error, WritingError)
                else (error.filename, error.strerror)
            )
            if not str(named).startswith(str(self.folder)) or not why:
                raise
            raise UnetsepError(
                f"writing to the temporary folder {self.folder.parent} failed: {why}; set TMPDIR "
                "to a folder with room for a song and its stems"
            ) from error

    def find(
        self, urls: Iterable[str], output_dir: Path, left_out: Callable[[Path], None]
    ) -> list[Input]:
        """Songs at URLs: a file as it is given, folders searched recursively.

        What has a suffix of audio is taken for a song without asking the store.

        Parameters
        ----------
        urls
            Of files and folders.
        output_dir
            Where the stems go, if they stay here; see `unetsep.inputs.find_inputs`.
        left_out
            Called with what was passed over.
        """
        stems = self.output or Store(f"file://{output_dir.absolute().as_posix()}")
        once: dict[tuple[str, str], Input] = {}
        for url in urls:
            for song in self._search_or_say(url, stems, left_out):
                once.setdefault((self._songs[song.path], song.track), song)
        return list(once.values())

    def _search_or_say(
        self, url: str, stems: Store, left_out: Callable[[Path], None]
    ) -> list[Input]:
        """The songs at a URL; one with an error where there is nothing."""
        try:
            return self._search(url, stems, left_out)
        except UnetsepError as error:
            return [self.input(url, track_name(PurePosixPath(last_name(url))), str(error))]

    def _search(self, url: str, stems: Store, left_out: Callable[[Path], None]) -> list[Input]:
        suffix = PurePosixPath(split_url(url)[2]).suffix.lower()
        track = track_name(PurePosixPath(last_name(url)))
        folder = split_links(url)[0].endswith("/")
        if not folder and suffix in AUDIO_SUFFIXES:
            return [self.input(url, track)]
        store = Store(url)
        if not folder and (store.scheme in READ_ONLY or store.info().get("type") != "directory"):
            return [self.input(url, track)]
        return self._search_folder(store, url, stems, left_out)

    def _search_folder(
        self, store: Store, url: str, stems: Store, left_out: Callable[[Path], None]
    ) -> list[Input]:
        """The songs below a URL.

        Raises
        ------
        UnetsepError
            If there are none.
        """
        listed = store.scheme in READ_ONLY  # as URLs, with letters encoded
        top = unquote(store.url) if listed else store.root
        paths = store.retry("", "listed", lambda: sorted(store.files.find(f"{store.root}/")))
        outputs = _outputs(store, paths) if store.place_in(stems) is not None else set()
        within = stems.place_in(store)
        passed_over = f"{store.at(within)}/" if within else None
        songs = []
        for path in paths:
            below = (unquote(path) if listed else path).removeprefix(top).removeprefix("/")
            full = path if listed else url_below(url, below)
            inner = below.strip("/")
            if path in outputs or (passed_over and path.startswith(passed_over)):
                continue
            if not inner:  # the folder itself, which consoles of buckets make as an empty object
                continue
            name = PurePosixPath(inner)
            hidden = any(part.startswith(".") for part in name.parts)
            if hidden or name.suffix.lower() not in AUDIO_SUFFIXES:
                # Not a path of this machine, where something else may have that name.
                left_out(UrlPath(url_below(url, inner)))
            else:
                songs.append(self.input(full, track_name(name)))
        if not songs:
            message = STEMS_ALONE if outputs.intersection(paths) else NO_AUDIO
            raise UnetsepError(message.format(store.url))
        return songs

    def input(self, url: str, track: str, error: str | None = None) -> Input:
        """A song at a URL, with the path where it will be."""
        suffix = PurePosixPath(split_url(url)[2]).suffix.lower()
        path = self.folder / "in" / str(len(self._songs)) / f"song{suffix}"
        self._songs[path] = url
        return Input(path, track, error)

    def job(self, song: Input, parts: Sequence[Part], *, skip_existing: bool) -> RemoteJob:
        """A song and what is to be made of it."""
        if self.output:
            parts = [replace(p, record=SpooledRecord(p.record.path), seen=None) for p in parts]
        return RemoteJob(song, parts, skip_existing, spool=self, url=self._songs.get(song.path))

    def url(self, song: Input) -> str | None:
        """Where a song comes from, without secrets; None if it is a file."""
        url = self._songs.get(song.path)
        return None if url is None else public_url(url)

    def display(self, text: str) -> str:
        """A text with URLs in the place of paths of the spool."""
        if self.output:
            out, url = str(self.out), self.output.url
            # With what may be the rest of the path: Windows' folders end with backslashes.
            paths = re.compile(re.escape(out) + r"""[^<>:"|?*\n]*""")
            text = paths.sub(lambda m: m[0].replace(out, url).replace(os.sep, "/"), text)
        return self._spooled.sub(
            lambda match: public_url(self._songs.get(Path(match[0]), match[0])), text
        )

    def place(self, path: Path) -> Path:
        """The URL of a file of the spool, as a path; any other path as it is."""
        return UrlPath(self.display(str(path))) if self.folder in path.parents else path

    def location(self, path: Path) -> Path:
        """Where a file is or will be, the same for every name of it."""
        from fsspec.implementations.local import LocalFileSystem

        place = self.place(path)
        is_here = str(place).startswith(tuple(f"{scheme}://" for scheme in LOCAL))
        return Path(LocalFileSystem._strip_protocol(str(place))) if is_here else place

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Errors name URLs."""
        try:
            yield
        except UnetsepError as error:
            raise UnetsepError(self.display(str(error))) from error

    def logs(self) -> list[Path]:
        """The logs that lie beside the stems, fetched."""
        assert self.output
        folder = self.folder / "logs"
        folder.mkdir(exist_ok=True)
        found = []
        for name in sorted(self.output.listing("")):
            if PurePosixPath(name).match(PATTERN):
                found.append(folder / name)
                found[-1].write_bytes(self.output.read(name) or b"")
        return found


def _remove_dead(folder: Path) -> None:
    """Remove spools whose runs were killed: they may hold songs and stems."""
    for spool in folder.glob(f"{SPOOL}*"):
        with contextlib.suppress(OSError, ClaimedError):
            # Without a look at its lock, for which one waits: who lives sets the time of it.
            if time.time() - (spool / MARK).stat().st_mtime > STALE:
                with Claim([spool / MARK]):
                    shutil.rmtree(spool, ignore_errors=True)
                if spool.exists():  # Windows keeps a lock that is held, and its folder
                    spool.rmdir()


class RemoteLog(RunLog):
    """A log beside stems at a URL: written here, and uploaded again and again.

    Parameters
    ----------
    path
        Where it is written; its name gets a token.
    store
        The folder of the stems.
    """

    def __init__(self, path: Path, store: Store) -> None:
        # Nothing can be appended there, and all containers may have one host and process number.
        super().__init__(path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}"))
        self._store, self._uploaded = store, time.monotonic()
        self.place = f"{store.url}/{self.path.name}"
        with contextlib.suppress(UnetsepError):  # of a store that shows no lists
            store.remove_leftovers("")

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        super().write(line)
        if time.monotonic() - self._uploaded > LOG_EVERY:
            self.close()

    def close(self, *, in_a_hurry: bool = False) -> None:
        """Upload what was written so far; in a hurry, try it but once."""
        if in_a_hurry:
            self._store.attempts = 1
        self._uploaded = time.monotonic()
        if self.lines and not self.failure:
            try:
                self._store.publish(self.path, self.path.name)
            except (UnetsepError, OSError) as error:  # such as a bucket that is gone
                self.failure = str(error)


def _outputs(store: Store, paths: Iterable[str]) -> set[str]:
    """The stems that records among some files of a store name."""
    records = [path for path in paths if PurePosixPath(path).match(RECORD_PATTERN)]
    names = [path.removeprefix(f"{store.root}/") for path in records]
    with ThreadPoolExecutor(READERS) as pool:  # each takes as long as an answer from afar
        contents = list(pool.map(store.read, names))
    return {
        f"{path.rpartition('/')[0]}/{output}"
        for path, content in zip(records, contents, strict=True)
        for entry in parse_entries(content or b"")
        for output in entry["outputs"]
    }
