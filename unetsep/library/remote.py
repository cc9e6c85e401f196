"""Songs and stems at URLs: downloaded and uploaded song by song.

A song is downloaded into a spool, a temporary folder, separated there as any other, and its stems
are uploaded (`stem_uploads`). Buckets have no locks, so there are no claims: shards, or an engine,
assign each song to one command.
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
from ..errors import UnetsepError, WritingError, temporary_folder_error
from ..file_options import FileOptions
from ..inputs import NO_AUDIO, STEMS_ALONE, Input, track_name
from ..storage import FULL, PREFIX
from ..unfinished import register_undo, unregister_undo
from .claims import STALE, Claim, ClaimedError
from .file_info import modified, version_of
from .log import PATTERN, RunLog
from .records import RECORD_PATTERN, InputFile, parse_entries
from .songs import Job, Part, Shared
from .stem_uploads import SpooledRecord, StemUpload
from .store import Store, TransferError
from .urls import (
    LOCAL,
    READ_ONLY,
    UrlPath,
    last_name,
    public_url,
    split_links,
    split_url,
    url_below,
    web_path,
)

# Number of records that are read at the same time.
READERS = 16
# Seconds between uploads of a log that grows, and most of the time that they may take: each sends
# the whole log, which has 2 KB for each song.
LOG_EVERY, LOG_SHARE = 60.0, 0.02
# Prefix of spools' folders, and the name of the claim in each.
SPOOL = "unetsep-"
MARK = f"{PREFIX}spool.lock"


class RemoteInputFile(InputFile):
    """A song at a URL, downloaded when its content is needed.

    Parameters
    ----------
    url
        Of the song.
    path
        Of its download.
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
        """URL, size, time and version; available without a download."""
        size = self._info.get("size")
        return {
            "path": public_url(self._url),
            "bytes": self.fetch().stat().st_size if size is None else size,
            "time_ns": int((modified(self._info) or 0) * 1e9),
            "version": version_of(self._info),
        }

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry's input has the same content."""
        same = all(entry.get(name) == value for name, value in self.facts.items())
        if same and self.facts["version"]:
            return True
        if entry.get("bytes") != self.facts["bytes"]:
            return False
        self.fetch()
        return entry.get("sha256") == self.sha256

    @property
    def is_local(self) -> bool:
        """Whether it was downloaded."""
        return self._fetched

    @property
    def known_sha256(self) -> str | None:
        """The hash of what was downloaded."""
        return self.sha256 if self._fetched else None

    @functools.cached_property
    def tags(self) -> Tags:
        """Its tags; none if it was not downloaded."""
        return super().tags if self._fetched else Tags()

    def fetch(self) -> Path:
        """The file, downloaded the first time."""
        if not self._fetched:
            try:
                self._store.fetch(self._path, self._info)
            except TransferError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno in FULL:  # of the local disk
                    raise OSError(cause.errno, cause.strerror, str(self._path)) from error
                raise
            self._fetched = True
            _ = self.tags, self.sha256  # cached: they are needed after the file is removed
        return self._path


@dataclass(frozen=True, eq=False)
class RemoteJob(Job):
    """A song that is downloaded, or whose stems are uploaded, or both.

    Parameters
    ----------
    spool
        Folder that maps its files to URLs.
    url
        Of the song; None if it is a file.
    """

    spool: Spool = field(kw_only=True)
    url: str | None = field(kw_only=True)

    @functools.cached_property
    def _input_file(self) -> InputFile:
        if self.url is None:
            return InputFile(self.song.path)
        return RemoteInputFile(self.url, self.song.path)

    @property
    def name(self) -> str:
        """Name of the song in messages."""
        return self.spool.display(str(self.song.path)).rpartition("/")[2]

    def input_file(self) -> InputFile:
        """The song's file, always the same object."""
        return self._input_file

    @contextlib.contextmanager
    def transferred(self, options: FileOptions, shared: Shared) -> Iterator[None]:
        """Fetch the state of the stems; afterwards upload new ones and remove the local files."""
        stores = self.spool.output
        uploads = (
            [StemUpload(part, stores, self.spool.out) for part in self.parts] if stores else []
        )
        try:
            with self.spool.naming_folder():
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

    def shown_path(self, path: Path) -> Path:
        """Path to show for a path; the URL of a file of the spool."""
        return super().shown_path(self.spool.shown_path(path))

    def shown_text(self, text: str) -> str:
        """A sentence with URLs in place of files of the spool."""
        return super().shown_text(self.spool.display(text))


class Spool:
    """A temporary folder for songs and stems of URLs; use as a context manager.

    Parameters
    ----------
    output
        URL of the folder of the stems; None if they stay on this machine.

    Raises
    ------
    UnetsepError
        If that URL cannot be written to.
    """

    def __init__(self, output: str | None) -> None:
        self.output = None if output is None else Store(output)
        if self.output and self.output.scheme in READ_ONLY:
            raise UnetsepError(f"{self.output.url} cannot be written to: name a bucket or a folder")
        if self.output:
            self.output.check_bucket()
        self._songs: dict[Path, str] = {}

    def __enter__(self) -> Spool:
        self._stack = contextlib.ExitStack()
        self._temporary = tempfile.TemporaryDirectory(prefix=SPOOL)
        register_undo(self._temporary.cleanup)
        self.folder = Path(self._stack.enter_context(self._temporary))
        _remove_dead(self.folder.parent)
        self._stack.enter_context(Claim([self.folder / MARK]))
        self.out = self.folder / "out"
        inner = re.escape(f"{self.folder / 'in'}{os.sep}")
        self._spooled = re.compile(inner + r"\d+" + re.escape(os.sep) + r"song(?:\.\w+)?")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        unregister_undo(self._temporary.cleanup)

    @contextlib.contextmanager
    def naming_folder(self) -> Iterator[None]:
        """Make errors of the spool's disk name its folder, not the store, which may have room.

        Raises
        ------
        UnetsepError
            In place of such errors.
        """
        try:
            yield
        except (OSError, WritingError) as error:
            path, reason = (
                (error.folder, error.reason)
                if isinstance(error, WritingError)
                else (error.filename, error.strerror)
            )
            if not str(path).startswith(str(self.folder)) or not reason:
                raise
            raise temporary_folder_error(self.folder.parent, reason) from error

    def find(
        self, urls: Iterable[str], output_dir: Path, on_skip: Callable[[Path], None]
    ) -> list[Input]:
        """Songs at URLs: single files, and folders searched recursively.

        A URL with an audio suffix is taken for a song without asking the store.

        Parameters
        ----------
        urls
            Of files and folders.
        output_dir
            Folder of the stems, if they stay on this machine; see `unetsep.inputs.find_inputs`.
        on_skip
            Called with each path that is skipped.
        """
        stems = self.output or Store(f"file://{output_dir.absolute().as_posix()}")
        songs: dict[tuple[str, str], Input] = {}
        for url in urls:
            for song in self._search_or_report(url, stems, on_skip):
                songs.setdefault((self._songs[song.path], song.track), song)
        return list(songs.values())

    def _search_or_report(
        self, url: str, stems: Store, on_skip: Callable[[Path], None]
    ) -> list[Input]:
        """The songs at a URL; one with an error if there are none."""
        try:
            return self._search(url, stems, on_skip)
        except UnetsepError as error:
            return [self.input(url, track_name(PurePosixPath(last_name(url))), str(error))]

    def _search(self, url: str, stems: Store, on_skip: Callable[[Path], None]) -> list[Input]:
        suffix = PurePosixPath(split_url(url)[2]).suffix.lower()
        track = track_name(PurePosixPath(last_name(url)))
        folder = split_links(url)[0].endswith("/")
        if not folder and suffix in AUDIO_SUFFIXES:
            return [self.input(url, track)]
        store = Store(url)
        if not folder and (store.scheme in READ_ONLY or store.info().get("type") != "directory"):
            return [self.input(url, track)]
        return self._search_folder(store, url, stems, on_skip)

    def _search_folder(
        self, store: Store, url: str, stems: Store, on_skip: Callable[[Path], None]
    ) -> list[Input]:
        """The songs below a URL.

        Raises
        ------
        UnetsepError
            If there are none.
        """
        lists_urls = store.scheme in READ_ONLY  # and with encoded letters
        root = unquote(web_path(store.root)) if lists_urls else store.root
        unlisted: dict[str, str] = {}
        files = store.files_below(unlisted.__setitem__)
        paths = sorted([*files, *unlisted])
        outputs = _outputs(store, paths) if store.place_in(stems) is not None else set()
        stems_folder = stems.place_in(store)
        excluded = f"{store.at(stems_folder)}/" if stems_folder else None
        songs = []
        for path in paths:
            listed = unquote(web_path(path)) if lists_urls else path
            relative = listed.removeprefix(root).removeprefix("/")
            song_url = path if lists_urls else url_below(url, relative)
            inner = relative.strip("/")
            if path in outputs or (excluded and path.startswith(excluded)):
                continue
            if not inner:  # the folder itself: consoles of buckets create an empty object
                continue
            if path in unlisted:
                songs.append(self.input(song_url, f"{inner}/", unlisted[path]))
                continue
            name = PurePosixPath(inner)
            hidden = any(part.startswith(".") for part in name.parts)
            if hidden or name.suffix.lower() not in AUDIO_SUFFIXES:
                # A URL, since a local file may have the same path.
                on_skip(UrlPath(url_below(url, inner)))
            else:
                songs.append(self.input(song_url, track_name(name)))
        if not songs:
            message = STEMS_ALONE if outputs.intersection(paths) else NO_AUDIO
            raise UnetsepError(message.format(store.url))
        return songs

    def input(self, url: str, track: str, error: str | None = None) -> Input:
        """A song at a URL, with the path of its download."""
        match = re.match(r"\.\w{1,19}", PurePosixPath(split_url(url)[2]).suffix.lower(), re.ASCII)
        suffix = match[0] if match else ""
        path = self.folder / "in" / str(len(self._songs)) / f"song{suffix}"
        self._songs[path] = url
        return Input(path, track, error)

    def job(self, song: Input, parts: Sequence[Part], *, skip_existing: bool) -> RemoteJob:
        """A song and the models that separate it."""
        if self.output:
            parts = [
                replace(p, record=SpooledRecord(p.record.path), first_signature=None) for p in parts
            ]
        return RemoteJob(song, parts, skip_existing, spool=self, url=self._songs.get(song.path))

    def url(self, song: Input) -> str | None:
        """URL of a song, without secrets; None if it is a file."""
        url = self._songs.get(song.path)
        return None if url is None else public_url(url)

    def display(self, text: str) -> str:
        """A text with URLs in place of paths of the spool."""
        if self.output:
            out, url = str(self.out), self.output.url
            # With the rest of the path, to replace backslashes on Windows.
            paths = re.compile(re.escape(out) + r"""[^<>:"|?*\n]*""")
            text = paths.sub(lambda m: m[0].replace(out, url).replace(os.sep, "/"), text)
        return self._spooled.sub(
            lambda match: public_url(self._songs.get(Path(match[0]), match[0])), text
        )

    def shown_path(self, path: Path) -> Path:
        """The URL of a file of the spool, as a path; other paths unchanged."""
        return UrlPath(self.display(str(path))) if self.folder in path.parents else path

    def location(self, path: Path) -> Path:
        """Location of a file, the same for all of its names."""
        from fsspec.implementations.local import LocalFileSystem

        shown = self.shown_path(path)
        is_local = str(shown).startswith(tuple(f"{scheme}://" for scheme in LOCAL))
        return Path(LocalFileSystem._strip_protocol(str(shown))) if is_local else shown

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Make errors name URLs instead of paths of the spool."""
        try:
            yield
        except UnetsepError as error:
            raise UnetsepError(self.display(str(error))) from error

    def logs(self) -> list[Path]:
        """The logs beside the stems, downloaded."""
        assert self.output
        folder = self.folder / "logs"
        folder.mkdir(exist_ok=True)
        paths = []
        for name in sorted(self.output.listing("")):
            if PurePosixPath(name).match(PATTERN):
                paths.append(folder / name)
                paths[-1].write_bytes(self.output.read(name) or b"")
        return paths


def _remove_dead(folder: Path) -> None:
    """Remove spools of killed runs: they may hold songs and stems."""
    for spool in folder.glob(f"{SPOOL}*"):
        with contextlib.suppress(OSError, ClaimedError):
            # The time comes first, as testing a lock takes a wait: living owners update the time.
            if time.time() - (spool / MARK).stat().st_mtime > STALE:
                with Claim([spool / MARK]):
                    shutil.rmtree(spool, ignore_errors=True)
                if spool.exists():  # Windows keeps a lock that is held, and its folder
                    spool.rmdir()


class RemoteLog(RunLog):
    """A log beside stems at a URL: written locally, and uploaded at intervals.

    Parameters
    ----------
    path
        Local path; its name gets a token.
    store
        Folder of the stems.
    """

    def __init__(self, path: Path, store: Store) -> None:
        # Stores cannot append, and containers may share one host name and process number.
        super().__init__(path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}"))
        self._store, self._next_upload = store, time.monotonic() + LOG_EVERY
        self.shown_path = f"{store.url}/{self.path.name}"
        with contextlib.suppress(UnetsepError):  # of a store that does not list files
            store.look("", [])
            store.remove_leftovers("")

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        super().write(line)
        if time.monotonic() > self._next_upload:
            self._upload()  # an error may pass until the next one

    def close(self, *, interrupted: bool = False) -> None:
        """Upload all lines; without retries if the run was interrupted."""
        if interrupted:
            self._store.attempts = 1
        if self.lines and not self.failure:
            self.failure = self._upload()

    def _upload(self) -> str | None:
        """Upload all lines so far; returns why that failed."""
        start = time.monotonic()
        try:
            self._store.publish(self.path, self.path.name)
        except (UnetsepError, OSError) as error:  # such as a bucket that was deleted
            return str(error)
        finally:
            seconds = time.monotonic() - start
            self._next_upload = start + seconds + max(LOG_EVERY, seconds / LOG_SHARE)
        return None


def _outputs(store: Store, paths: Iterable[str]) -> set[str]:
    """The stems that are named by records among some files of a store."""
    records = [path for path in paths if PurePosixPath(path).match(RECORD_PATTERN)]
    names = [path.removeprefix(f"{store.root}/") for path in records]
    with ThreadPoolExecutor(READERS) as pool:  # each takes a round trip
        contents = list(pool.map(store.read, names))
    return {
        f"{path.rpartition('/')[0]}/{output}"
        for path, content in zip(records, contents, strict=True)
        for entry in parse_entries(content or b"")
        for output in entry["outputs"]
    }
