import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest

from unetsep.errors import WeightsError
from unetsep.spleeter.crc32c import crc32c
from unetsep.spleeter.tensor_bundle import MAGIC, Entry, read_index, read_tensor, unmask

# Written by TensorFlow 2.12; see tests/parity.
FIXTURE = Path(__file__).parents[1] / "fixtures" / "spleeter" / "2stems"
INDEX = (FIXTURE / "model.index").read_bytes()
DATA = (FIXTURE / "model.data-00000-of-00001").read_bytes()


def mask(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(pairs, kind=0):
    content = b"".join(
        varint(shared) + varint(len(key)) + varint(len(value)) + key + value
        for shared, key, value in pairs
    )
    content += struct.pack("<II", 0, 1)
    return content + struct.pack("<BI", kind, mask(crc32c(content + bytes([kind]))))


def table(pairs, kind=0, repeat=1, header=b"\x08\x01"):
    """An index with one block of data."""
    data = block([(0, b"", header), *pairs], kind)
    handle = varint(0) + varint(len(data) - 5)
    middle = block([(0, b"z", handle)] * repeat)
    pointer = varint(len(data)) + varint(len(middle) - 5)
    footer = (varint(0) + varint(0) + pointer).ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    return data + middle + footer


def test_every_tensor_that_tensorflow_wrote_is_read():
    shards, entries = read_index(INDEX)
    assert shards == 1
    assert entries["conv2d/kernel"].shape == (5, 5, 2, 2)
    assert entries["conv2d_transpose_11/kernel"].shape == (5, 5, 1, 4)
    assert entries["global_step"].shape == ()
    tensors = {name: read_tensor(name, entry, [DATA]) for name, entry in entries.items()}
    assert sum(value.nbytes for value in tensors.values()) == len(DATA)
    variance = tensors["batch_normalization_23/moving_variance"]
    assert variance.dtype == np.float32
    assert 0.5 <= variance.min() <= variance.max() <= 1.5


def test_keys_share_prefixes_with_the_previous_key():
    _, entries = read_index(table([(0, b"conv/bias", b""), (5, b"kernel", b"")]))
    assert list(entries) == ["conv/bias", "conv/kernel"]


def test_an_index_cut_anywhere_is_refused():
    for size in range(0, len(INDEX), 97):
        with pytest.raises(WeightsError, match=r"index is (truncated|damaged)"):
            read_index(INDEX[:size])


def test_an_index_with_any_byte_changed_is_refused_or_the_same():
    expected = read_index(INDEX)
    for at in range(0, len(INDEX), 61):
        changed = bytearray(INDEX)
        changed[at] ^= 0x41
        # Padding and an empty block that nobody reads may change.
        with contextlib.suppress(WeightsError):
            assert read_index(bytes(changed)) == expected


def test_a_compressed_index_is_refused_by_name():
    with pytest.raises(WeightsError, match="snappy"):
        read_index(table([], kind=1))


def test_a_big_endian_checkpoint_is_refused():
    with pytest.raises(WeightsError, match="big-endian"):
        read_index(table([], header=b"\x08\x01\x10\x01"))


def test_partitioned_tensors_are_refused():
    with pytest.raises(WeightsError, match="partitioned"):
        read_index(table([(0, b"a", b"\x3a\x00")]))


@pytest.mark.parametrize(
    "pairs",
    [
        [(9, b"a", b"")],  # shares more than there is
        [(0, b"\xff\xfe", b"")],  # no text
        [(0, b"a", b"\x12\x50")],  # a length beyond the message
        [(0, b"a", b"\x0b")],  # a wire type of old
        [(0, b"a", b"\x0a\x00")],  # a message where a number belongs
        [(0, b"a", b"\x08" + b"\xff" * 12)],  # a number that does not end
        [(0, b"a" * 5000, b"")],  # a name without measure
    ],
)
def test_invalid_entries_are_refused(pairs):
    with pytest.raises(WeightsError, match="damaged"):
        read_index(table(pairs))


def test_an_index_that_repeats_one_block_is_refused():
    with pytest.raises(WeightsError, match="damaged"):
        read_index(table([], repeat=1000))


def entry(**changes):
    content = np.arange(6, dtype="<f4").tobytes()
    values = {"dtype": "<f4", "shape": (2, 3), "shard": 0, "offset": 0, "size": 24}
    return Entry(**(values | {"crc": mask(crc32c(content))} | changes)), content


def test_a_tensor_has_the_saved_values():
    which, content = entry()
    assert unmask(which.crc) == crc32c(content)
    np.testing.assert_array_equal(read_tensor("w", which, [content]), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crc": 1}, "damaged: its CRC"),
        ({"offset": 1}, "truncated"),
        ({"offset": -4}, "truncated"),
        ({"shard": 1}, "shard that is missing"),
        ({"shard": -1}, "shard that is missing"),
        ({"shape": (2, 4)}, "do not fit its shape"),
        ({"shape": (-2, -3)}, "do not fit its shape"),
        ({"shape": (1 << 40, 1 << 40), "size": 1 << 82}, "truncated"),
        ({"dtype": ""}, "not supported"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(changes, message):
    which, content = entry(**changes)
    with pytest.raises(WeightsError, match=message):
        read_tensor("w", which, [content])
