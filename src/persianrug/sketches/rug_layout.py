"""The bytes of the file format .rug: codes in chunks, each with a checksum; docs/format.md describes every one.

    magic        8 bytes    89 52 55 47 0D 0A 1A 0A
    length       uint64     of the header
    header       JSON
    seal         16 bytes   BLAKE2b of all before
    records      each       kind (4 bytes), rows (uint32), first row (uint64), payload, BLAKE2b of seal and record

A record CODE holds rows of codes and, in a file of version 2, their names after them: the length of a text and the
text. The last record, DONE, holds none, and the number of all rows where others have their first. All numbers are
little-endian. What is cut off or damaged is seen, and what is before it can be read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x89RUG\r\n\x1a\n"
# The second version is that of files with names of rows, the third that of files whose sketch is in another file.
FORMAT, VERSION, NAMED_VERSION, LIKE_VERSION = "persianrug codes", 1, 2, 3
# What these take from the header of the other file.
SHARED = ("n_sparse", "n_dense", "dtype", "bits", "step", "centre", "mixture", "recipe", "digest", "names", "plan")
LENGTH = struct.Struct("<Q")
RECORD = struct.Struct("<4sIQ")
NAMES = struct.Struct("<I")
CODE, DONE = b"CODE", b"DONE"
SEAL = 16
# A file may claim any size; no header is longer than this, and no chunk unless a single row is.
MOST_HEADER = 1 << 28
MOST_CHUNK = 1 << 26
MOST_NAMES = 1 << 26
CHUNK = 1 << 20

ALLOWED = "a file that compress wrote"


class Layout:
    """How rows of codes are written: floats, or the numbers of their levels in a few bits each."""

    def __init__(
        self, n_dense: int, dtype: str, bits: int | None, step: float, centre: NDArray[np.float64]
    ) -> None:
        self.n_dense, self.dtype, self.bits, self.step, self.centre = n_dense, np.dtype(dtype), bits, step, centre
        width = 8 * self.dtype.itemsize if bits is None else bits
        self.row_bytes = -(-n_dense * width // 8)

    def pack(self, values: NDArray[Any]) -> bytes:
        """Rows (rows, n_dense) as bytes."""
        if self.bits is None:
            with np.errstate(over="ignore"):
                floats = np.ascontiguousarray(values, dtype=self.dtype)
            if np.isinf(floats).any():
                raise ValueError(f"codes hold numbers beyond {np.finfo(self.dtype).max:.3g}; allowed: up to that, "
                                 f"or dtype float64")  # fmt: skip
            return floats.tobytes()
        levels = np.rint((values - self.centre) / self.step - 0.5) + 2 ** (self.bits - 1)
        levels = levels.clip(0, 2**self.bits - 1).astype("<u2")
        if self.bits in (8, 16):
            return levels.astype(f"<u{self.bits // 8}").tobytes()
        places = (levels[..., None] >> np.arange(self.bits, dtype=np.uint16)) & 1
        flat = places.astype(np.uint8).reshape(len(levels), -1)
        return np.packbits(flat, axis=1, bitorder="little").tobytes()

    def unpack(self, content: bytes) -> NDArray[Any]:
        """The rows of these bytes."""
        if self.bits is None:
            return (
                np.frombuffer(content, dtype=self.dtype)
                .reshape(-1, self.n_dense)
                .astype(self.dtype.newbyteorder("="))
            )
        if self.bits in (8, 16):
            levels = np.frombuffer(content, dtype=f"<u{self.bits // 8}").reshape(-1, self.n_dense)
        else:
            rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, self.row_bytes)
            places = np.unpackbits(rows, axis=1, count=self.n_dense * self.bits, bitorder="little")
            weights = (1 << np.arange(self.bits)).astype(np.uint16)
            levels = places.reshape(len(rows), self.n_dense, self.bits) @ weights
        values = (levels - (2 ** (self.bits - 1) - 0.5)) * self.step + self.centre
        return values.astype(self.dtype.newbyteorder("="))


def checksum(*parts: bytes) -> bytes:
    """BLAKE2b of parts, one after the other."""
    found = blake2b(digest_size=SEAL)
    for part in parts:
        found.update(part)
    return found.digest()


def exactly(file: BinaryIO, size: int) -> bytes:
    """So many bytes of a file or pipe, or what there is, read in steps: a claim alone takes no memory."""
    parts = []
    while size > 0:
        part = file.read(min(size, CHUNK))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def pack_names(names: Sequence[str]) -> bytes:
    """Names of the rows of a chunk, as they are in a record."""
    text = json.dumps(list(names)).encode()
    if len(text) > MOST_NAMES:
        raise ValueError(f"names of {len(names)} rows take {len(text)} bytes; allowed: up to {MOST_NAMES}")
    return NAMES.pack(len(text)) + text


def unpack_names(text: bytes, rows: int) -> tuple[str, ...]:
    """The names of so many rows; ValueError where the text is another."""
    names = json.loads(text)
    if not isinstance(names, list) or len(names) != rows or not all(isinstance(name, str) for name in names):
        raise ValueError(f"it is no list of {rows} names")
    return tuple(names)
