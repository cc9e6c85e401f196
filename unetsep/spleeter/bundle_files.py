"""The files of one TensorFlow checkpoint, from a folder or out of a tar archive.

Archives come from the net and are read member by member into memory, never extracted. One
that holds links, devices or paths that lead elsewhere is refused as a whole.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import WeightsError
from .tensor_bundle import read_index

# Spleeter's largest checkpoint holds 200 MB, with the optimiser's state three times that.
MAX_BYTES, MAX_MEMBERS = 2 << 30, 1000
MAX_INDEX_BYTES, MAX_SHARDS = 16 << 20, 100
WANTED = re.compile(r"checkpoint|[\w.-]+\.(index|data-\d{5}-of-\d{5})")


@dataclass(frozen=True)
class BundleFiles:
    """Content of a checkpoint.

    Parameters
    ----------
    prefix
        What its files' names begin with, usually ``model``.
    index
        Content of ``<prefix>.index``.
    shards
        Content of ``<prefix>.data-00000-of-00001`` and so on.
    """

    prefix: str
    index: bytes
    shards: tuple[bytes, ...]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file by its name."""
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


def read_bundle(source: Path) -> BundleFiles:
    """Read a checkpoint's index and shards.

    Parameters
    ----------
    source
        Folder, or tar archive, compressed or not.

    Raises
    ------
    WeightsError
        If there is none, a part is missing, or the archive is damaged or not to be trusted.
    """
    if not source.exists():
        raise WeightsError(f"{source} does not exist")
    try:
        with _folder(source) if source.is_dir() else _archive(source) as files:
            return _read(files, source)
    except tarfile.ReadError as error:
        raise WeightsError(
            f"{source} is truncated or no tar archive: expected a folder or a .tar.gz"
        ) from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise WeightsError(f"{source} is truncated or damaged") from error
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {error}") from error


@contextmanager
def _folder(source: Path) -> Iterator[dict[str, _File]]:
    yield {
        path.name: _File(path.stat().st_size, path.read_bytes)
        for path in source.iterdir()
        if WANTED.fullmatch(path.name) and path.is_file()
    }


@contextmanager
def _archive(source: Path) -> Iterator[dict[str, _File]]:
    with tarfile.open(source) as archive:
        files: dict[str, _File] = {}
        size = 0
        for count, member in enumerate(archive, start=1):
            _check_member(member, source)
            size += member.size
            if count > MAX_MEMBERS or size > MAX_BYTES:
                raise WeightsError(f"{source} holds more than any checkpoint of Spleeter")
            name = PurePosixPath(member.name).name
            if not member.isfile() or not WANTED.fullmatch(name) or name.startswith("."):
                continue
            if name in files:
                raise WeightsError(f"{source} holds two files named {name!r}")
            files[name] = _File(member.size, _reader(archive, member))
        yield files


def _check_member(member: tarfile.TarInfo, source: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
        raise WeightsError(f"{source} is not to be trusted: {member.name!r} leads out of it")
    if not (member.isfile() or member.isdir()):
        raise WeightsError(f"{source} is not to be trusted: {member.name!r} is a link or a device")


def _reader(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        file = archive.extractfile(member)
        assert file is not None  # it is a regular file
        return file.read()

    return read


def _read(files: Mapping[str, _File], source: Path) -> BundleFiles:
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
    """Which checkpoint to read: the one that the text file ``checkpoint`` names, or the only."""
    found = sorted(name.removesuffix(".index") for name in files if name.endswith(".index"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise WeightsError(
            f"{source} holds no TensorFlow checkpoint: expected model.index and model.data-*"
        )
    if "checkpoint" in files and files["checkpoint"].size < 1 << 20:
        text = files["checkpoint"].read().decode("utf-8", "replace")
        match = re.search(r'^model_checkpoint_path:\s*"([^"\n]+)"', text, re.MULTILINE)
        latest = re.split(r"[/\\]", match[1])[-1] if match else ""
        if latest in found:
            return latest
    raise WeightsError(
        f"{source} holds several checkpoints ({', '.join(found[:3])}...) and no file "
        "'checkpoint' that says which to take"
    )
