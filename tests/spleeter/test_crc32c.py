import numpy as np
import pytest

from unetsep.spleeter.crc32c import LANE_BYTES, LANES, POLYNOMIAL, crc32c


def bit_by_bit(content):
    register = 0xFFFFFFFF
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF


# RFC 3720, appendix B.4, and the usual check value.
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"123456789", 0xE3069283),
        (b"", 0),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_checksums_equal_published_values(content, expected):
    assert crc32c(content) == expected


@pytest.mark.parametrize("size", [1, 2, 3, LANE_BYTES - 1, LANE_BYTES, LANE_BYTES + 1, 5001])
def test_lanes_give_the_checksum_of_a_loop_over_bits(size):
    content = np.random.default_rng(size).bytes(size)
    assert crc32c(content) == bit_by_bit(content)


def test_blocks_of_a_long_buffer_are_joined_correctly():
    # A message followed by its complemented CRC leaves a constant, whatever its length.
    content = np.random.default_rng(0).bytes(LANES * LANE_BYTES * 2 + 12345)
    checked = content + crc32c(content).to_bytes(4, "little")
    assert crc32c(checked) == 0x48674BC7
