"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) with numpy, for hundreds of megabytes.

The register of a CRC is linear over GF(2) in its bytes, so a buffer is split into lanes that
are computed in parallel and then joined: the register of a lane followed by ``n`` bytes is
the lane's register, advanced by ``n`` zero bytes, xor the register of those bytes alone.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

# The polynomial 0x1EDC6F41 with its bits reversed.
POLYNOMIAL = 0x82F63B78
LANES, LANE_BYTES = 8192, 1024


@functools.lru_cache(maxsize=1)
def _pair_table() -> Words:
    """Register after two zero bytes, for each value of its lower 16 bits, ``(65536,)``."""
    table = np.arange(65536, dtype=np.uint32)
    for _ in range(16):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


def _apply(columns: Words, registers: Words) -> Words:
    """Linear map on registers; ``columns[i]`` is the image of bit ``i``."""
    out = np.zeros_like(registers)
    for bit in range(32):
        out ^= columns[bit] * ((registers >> np.uint32(bit)) & np.uint32(1))
    return out


@functools.lru_cache(maxsize=64)
def _zeros(count: int) -> Words:
    """The map of a register over ``count`` zero bytes, by repeated squaring, ``(32,)``."""
    if count == 0:
        return np.uint32(1) << np.arange(32, dtype=np.uint32)
    if count % 2:
        columns = _zeros(count - 1)
        for _ in range(8):
            columns = np.where(columns & 1, (columns >> 1) ^ np.uint32(POLYNOMIAL), columns >> 1)
        return columns.astype(np.uint32)
    half = _zeros(count // 2)
    return _apply(half, half)


def crc32c(content: bytes | memoryview) -> int:
    """CRC-32C of a buffer, for example ``0xE3069283`` of ``b"123456789"``."""
    data = np.frombuffer(content, np.uint8)
    register = np.zeros(1, np.uint32)
    block = LANES * LANE_BYTES
    # Zeros before the first byte change nothing, as the register is zero there.
    remainder = len(data) % block
    for start in range(remainder - block if remainder else 0, len(data), block):
        chunk = data[max(start, 0) : start + block]
        register = _apply(_zeros(len(chunk)), register) ^ _lanes(chunk)
    initial = _apply(_zeros(len(data)), np.full(1, 0xFFFFFFFF, np.uint32))
    return int((initial ^ register)[0]) ^ 0xFFFFFFFF


def _lanes(chunk: npt.NDArray[np.uint8]) -> Words:
    """Register, from zero, after up to ``LANES * LANE_BYTES`` bytes, ``(1,)``."""
    lanes = 1
    while lanes < LANES and lanes * LANE_BYTES < len(chunk):
        lanes *= 2
    length = -(-len(chunk) // lanes)
    length += length % 2
    padded = np.zeros(lanes * length, np.uint8)
    padded[len(padded) - len(chunk) :] = chunk
    pairs = padded.view("<u2").reshape(lanes, length // 2)
    table, registers = _pair_table(), np.zeros(lanes, np.uint32)
    for column in range(pairs.shape[1]):
        registers ^= pairs[:, column]
        registers = (registers >> np.uint32(16)) ^ table[registers & np.uint32(0xFFFF)]
    while len(registers) > 1:
        registers = _apply(_zeros(length), registers[0::2]) ^ registers[1::2]
        length *= 2
    return registers
