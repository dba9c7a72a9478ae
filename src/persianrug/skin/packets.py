"""Packets: a code on a bus, a part of its entries each, so that any that arrive help.

    magic      2 bytes   "Pr"
    version    uint8     1
    bits       uint8     of each value, 2 to 16
    stream     uint32    what the encoder calls its skin: packets of others are told apart
    frame      uint32    goes around after 2^32 - 1
    block      uint8
    exponent   uint8     0 to 31, and 128 more where counts were cut before
    start      uint16    the first entry
    count      uint16    of entries, 1 or more
    checksum   uint32    CRC-32 of all the rest
    payload              count signed values of `bits` bits each, and zero bits up to a whole byte

All numbers are big-endian. A packet has at most 1,400 bytes, which every network carries in one piece. The
receiver asks for more rows of a frame by a packet of 20 bytes: "Pq", version, block, stream, frame, start, count,
checksum.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.skin.encoder import FRAMES, LEAST_BITS, MOST_BITS, MOST_BLOCKS, Code
from persianrug.skin.hadamard import MOST_NUMBERS

MAGIC, ASKING, VERSION = b"Pr", b"Pq", 1
MOST_BYTES = 1400
_HEADER = struct.Struct(">2sBBIIBBHH")
_REQUEST = struct.Struct(">2sBBIIHH")
_CHECKSUM = struct.Struct(">I")
_OVERHEAD = _HEADER.size + _CHECKSUM.size
_MOST_EXPONENT = 31
_CUT = 128


class DamagedPacket(ValueError):
    """What was read is no packet that was written as one."""


@dataclass(frozen=True, eq=False)
class Packet:
    """Entries start, start + 1, ... of the code of a block of a frame.

    Attributes
    ----------
    stream, frame, block, start, exponent, bits : int
    values : int16 array (k,)
    cut : bool
        As of `Code`.
    """

    stream: int
    frame: int
    block: int
    start: int
    exponent: int
    bits: int
    values: NDArray[np.int16]
    cut: bool = False


@dataclass(frozen=True)
class Request:
    """Asks for entries start to start + count - 1 of the code of a block of a frame.

    Raises
    ------
    ValueError
        If a number does not fit its bits in a packet.
    """

    stream: int
    frame: int
    block: int
    start: int
    count: int

    def __post_init__(self) -> None:
        checks.integer("stream", self.stream, 0, FRAMES - 1)
        checks.integer("frame", self.frame, 0, FRAMES - 1)
        checks.integer("block", self.block, 0, MOST_BLOCKS - 1)
        checks.integer("start", self.start, 0, MOST_NUMBERS - 1)
        checks.integer("count", self.count, 1, min(MOST_NUMBERS - self.start, MOST_NUMBERS - 1))

    def pack(self) -> bytes:
        """The packet of 20 bytes."""
        head = _REQUEST.pack(ASKING, VERSION, self.block, self.stream, self.frame, self.start, self.count)
        return head + _CHECKSUM.pack(zlib.crc32(head))


def packets_of(code: Code, stream: int, n_packets: int = 1) -> list[bytes]:
    """A code in so many packets of nearly as many entries each, or more where they would be too long.

    Parameters
    ----------
    code : Code
    stream : int
        `SkinEncoder.stream`.
    n_packets : int >= 1
        At most one an entry is made.

    Raises
    ------
    ValueError
        If an argument is out of its range, or values do not fit their bits.
    """
    stream = checks.integer("stream", stream, 0, FRAMES - 1)
    n_packets = checks.integer("n_packets", n_packets, 1)
    values, bits = code.values, code.bits
    if len(values) and max(-int(values.min()), int(values.max())) >= 1 << (bits - 1):
        raise ValueError(f"values go beyond {(1 << (bits - 1)) - 1}; allowed: up to that at {bits} bits")
    most = (MOST_BYTES - _OVERHEAD) * 8 // bits
    n_packets = min(max(n_packets, -(-len(values) // most)), len(values))
    edges = [len(values) * i // n_packets for i in range(n_packets + 1)] if n_packets else []
    # The bits of all values, of which every packet takes its own.
    places = np.unpackbits(values.astype(">i2").view(np.uint8)).reshape(-1, 16)[:, 16 - bits :]
    packets = []
    for low, high in pairwise(edges):
        header = _HEADER.pack(
            MAGIC,
            VERSION,
            bits,
            stream,
            code.frame,
            code.block,
            code.exponent | (_CUT if code.cut else 0),
            code.start + low,
            high - low,
        )
        payload = np.packbits(places[low:high]).tobytes()
        packets.append(header + _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(header))) + payload)
    return packets


def read_packet(content: bytes) -> Packet:
    """What a packet holds.

    Raises
    ------
    DamagedPacket
        If it has another length or checksum than it says, or holds what `packets_of` does not write.
    """
    head = _opened(content, MAGIC, _HEADER)
    bits, stream, frame, block, exponent, start, count = head[2:]
    cut, exponent = bool(exponent & _CUT), exponent & ~_CUT
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise DamagedPacket(f"packet has values of {bits} bits; allowed: {LEAST_BITS} to {MOST_BITS}")
    if exponent > _MOST_EXPONENT:
        raise DamagedPacket(f"packet has the exponent {exponent}; allowed: up to {_MOST_EXPONENT}")
    if count == 0 or start + count > MOST_NUMBERS:
        raise DamagedPacket(
            f"packet has {count} entries from {start} on; allowed: 1 or more, up to {MOST_NUMBERS}"
        )
    size = -(-count * bits // 8)
    if len(content) != _OVERHEAD + size:
        raise DamagedPacket(f"packet has {len(content)} bytes; allowed: {_OVERHEAD + size} for {count} values")
    payload = content[_OVERHEAD:]
    if payload[-1] & ((1 << (8 * size - count * bits)) - 1):
        raise DamagedPacket("packet has bits after its values; allowed: zeros")
    values = _unpack(payload, count, bits)
    if int(values.min()) == -(1 << (bits - 1)):
        raise DamagedPacket(f"packet has the value {values.min()}; allowed: from {1 - (1 << (bits - 1))} on")
    return Packet(stream, frame, block, start, exponent, bits, values, cut)


def read_request(content: bytes) -> Request:
    """What is asked for; errors as of `read_packet`."""
    block, stream, frame, start, count = _opened(content, ASKING, _REQUEST)[2:]
    if len(content) != _REQUEST.size + _CHECKSUM.size:
        raise DamagedPacket(f"request has {len(content)} bytes; allowed: {_REQUEST.size + _CHECKSUM.size}")
    try:
        return Request(stream, frame, block, start, count)
    except ValueError as error:
        raise DamagedPacket(f"request says that {error}") from None


def _opened(content: bytes, magic: bytes, header: struct.Struct) -> tuple[int, ...]:
    """The header, where length, magic, checksum and version are right."""
    least = header.size + _CHECKSUM.size
    if not least <= len(content) <= MOST_BYTES:
        raise DamagedPacket(f"packet has {len(content)} bytes; allowed: {least} to {MOST_BYTES}")
    head = header.unpack_from(content)
    if head[0] != magic:
        raise DamagedPacket(f"packet begins with {content[:2]!r}; allowed: {magic!r}")
    if _CHECKSUM.unpack_from(content, header.size)[0] != zlib.crc32(
        content[least:], zlib.crc32(content[: header.size])
    ):
        raise DamagedPacket("packet does not have the checksum that it says; allowed: as it was written")
    if head[1] != VERSION:
        raise DamagedPacket(f"packet is of version {head[1]}; allowed: {VERSION}")
    return head


def _unpack(payload: bytes, count: int, bits: int) -> NDArray[np.int16]:
    """The values, whose first bit is that of their sign."""
    if bits == 16:
        return np.frombuffer(payload, dtype=">i2").astype(np.int16)
    wide = np.zeros((count, 16), dtype=np.uint8)
    flat = np.frombuffer(payload, dtype=np.uint8)
    wide[:, :bits] = np.unpackbits(flat, count=count * bits).reshape(count, bits)
    return np.packbits(wide).view(">i2").astype(np.int16) >> (16 - bits)
