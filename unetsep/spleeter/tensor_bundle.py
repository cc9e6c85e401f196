"""TensorFlow's checkpoint files ("tensor bundles"), read without TensorFlow.

``model.index`` is a table of sorted strings in the format of LevelDB (leveldb
``doc/table_format.md``): blocks of prefix-compressed keys and values, each block followed by
a compression byte and a masked CRC-32C, an index block that points to them, and a footer of
48 bytes. Its values are protobufs (TensorFlow ``core/protobuf/tensor_bundle.proto``): a
``BundleHeaderProto`` under the empty key and a ``BundleEntryProto`` for each tensor, which
gives the position of its raw bytes in the shards ``model.data-00000-of-00001`` and their
CRC-32C. Every length is checked before it is used and every checksum compared.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import WeightsError
from .crc32c import crc32c

FOOTER_BYTES, MAGIC = 48, 0xDB4775248B80FB57
TRAILER_BYTES = 5
MAX_NAME_BYTES = 4096
# DataType numbers of TensorFlow's types.proto.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}


@dataclass(frozen=True)
class Entry:
    """Position and form of one tensor.

    Parameters
    ----------
    dtype
        NumPy's name of the type, or ``""`` for unsupported types.
    shape
        Of the tensor.
    shard, offset, size
        Number of the file, position and length in it in bytes.
    crc
        Masked CRC-32C of the bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def unmask(masked: int) -> int:
    """CRC from the form in which LevelDB and TensorFlow store it (leveldb ``util/crc32c.h``)."""
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def read_index(content: bytes) -> tuple[int, dict[str, Entry]]:
    """All entries of a bundle's index.

    Parameters
    ----------
    content
        The whole ``.index`` file.

    Returns
    -------
    tuple
        Number of shards, and the entries by the tensors' names.

    Raises
    ------
    WeightsError
        If the file is truncated, damaged, compressed or not such an index.
    """
    try:
        if len(content) < FOOTER_BYTES:
            raise WeightsError("the checkpoint's index is truncated")
        footer = content[-FOOTER_BYTES:]
        if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
            raise WeightsError("the checkpoint's index is truncated or no TensorFlow bundle")
        _, at = _handle(footer, 0)  # of the metaindex, which is empty
        index, _ = _handle(footer, at)
        values: dict[bytes, bytes] = {}
        end = 0
        for _, pointer in _pairs(_block(content, *index)):
            (offset, size), _ = _handle(pointer, 0)
            if offset < end:  # otherwise one block could be read a million times
                raise IndexError("blocks overlap")
            end = offset + size
            values.update(_pairs(_block(content, offset, size)))
        shards = _header(values.pop(b""))
        entries = {name.decode("utf-8"): _entry(value) for name, value in values.items()}
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise WeightsError("the checkpoint's index is damaged") from error
    return shards, entries


def read_tensor(name: str, entry: Entry, shards: Sequence[bytes]) -> npt.NDArray[np.generic]:
    """One tensor, a view of its shard's bytes.

    Raises
    ------
    WeightsError
        If it lies outside its shard, or its bytes do not fit its shape or its checksum.
    """
    if not entry.dtype:
        raise WeightsError(f"tensor {name!r} of the checkpoint has a type that is not supported")
    kind = np.dtype(entry.dtype)
    expected = kind.itemsize
    for size in entry.shape:
        expected *= size
    if min(entry.shape, default=0) < 0 or expected != entry.size:
        raise WeightsError(
            f"tensor {name!r} of the checkpoint: {entry.size} bytes do not fit its "
            f"shape {entry.shape}"
        )
    if not 0 <= entry.shard < len(shards):
        raise WeightsError(f"tensor {name!r} of the checkpoint lies in a shard that is missing")
    if entry.offset < 0 or entry.offset + entry.size > len(shards[entry.shard]):
        raise WeightsError(
            f"tensor {name!r} lies beyond the end of the checkpoint's data: the file is truncated"
        )
    raw = memoryview(shards[entry.shard])[entry.offset : entry.offset + entry.size]
    if crc32c(raw) != unmask(entry.crc):
        raise WeightsError(f"tensor {name!r} of the checkpoint is damaged: its CRC-32C differs")
    return np.frombuffer(raw, kind).reshape(entry.shape)


def _block(content: bytes, offset: int, size: int) -> bytes:
    """Content of a block, after comparing its checksum."""
    block = content[offset : offset + size]
    trailer = content[offset + size : offset + size + TRAILER_BYTES]
    if len(trailer) < TRAILER_BYTES:
        raise WeightsError("the checkpoint's index is truncated")
    kind, masked = struct.unpack("<BI", trailer)
    if crc32c(block + trailer[:1]) != unmask(masked):
        raise WeightsError("the checkpoint's index is damaged: the CRC-32C of a block differs")
    if kind != 0:
        raise WeightsError(
            "the checkpoint's index is compressed (snappy), which is not supported: save it "
            "again with TensorFlow 1.15 or newer"
        )
    return block


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; each key gives the length of the prefix shared with the one before."""
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        too_long = shared + unshared > MAX_NAME_BYTES
        if too_long or shared > len(key) or at + unshared + length > end:
            raise IndexError("an entry leads out of its block")
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return (offset, size), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Unsigned number of seven bits per byte, the lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise IndexError("a number does not end")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message (protobuf ``encoding.md``)."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, at = _varint(message, at)
        elif not size:
            raise IndexError(f"wire type {kind} is not known")
        raw = message[at : at + size]
        if len(raw) < size:
            raise IndexError("a field leads out of its message")
        at += size
        yield tag >> 3, raw if kind == 2 else int.from_bytes(raw, "little")


def _number(value: int | bytes) -> int:
    """A field that must be a number; negative ones are written as unsigned 64 bits."""
    if isinstance(value, bytes):
        raise IndexError("a number was expected")
    return value - (1 << 64) if value >= 1 << 63 else value


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise IndexError("a message was expected")
    return value


def _header(message: bytes) -> int:
    """Number of shards from a ``BundleHeaderProto``."""
    fields = dict(_fields(message))
    if _number(fields.get(2, 0)) != 0:
        raise WeightsError("the checkpoint is big-endian, which is not supported")
    return _number(fields.get(1, 0))


def _entry(message: bytes) -> Entry:
    """From a ``BundleEntryProto``; its shape is a ``TensorShapeProto`` of sized ``Dim``."""
    fields = dict(_fields(message))
    if 7 in fields:
        raise WeightsError("the checkpoint holds partitioned tensors, which are not supported")
    shape = []
    for number, dim in _fields(_message(fields.get(2, b""))):
        if number == 2:
            shape.append(_number(dict(_fields(_message(dim))).get(1, 0)))
    dtype = DTYPES.get(_number(fields.get(1, 0)), "")
    shard, offset, size, crc = (_number(fields.get(number, 0)) for number in (3, 4, 5, 6))
    return Entry(dtype, tuple(shape), shard, offset, size, crc)
