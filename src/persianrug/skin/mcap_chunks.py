"""The messages of an MCAP file, chunk by chunk, without trust in a byte of it.

The reader of the package mcap takes what it gets for what it asked for, unpacks as much as a chunk claims, and
skips records that it does not know: damage may go unseen. Here all lengths are checked before memory is taken,
the checksums of every chunk and of the whole are compared, and a file that ends early is read up to its last whole
chunk.

Source: the MCAP format specification, version 0, https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import zstandard

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 3, 4, 5, 6, 15
_RECORD = struct.Struct("<BQ")
_CHUNK_START = struct.Struct("<QQQI")
_MESSAGE_START = struct.Struct("<HIQQ")
# A chunk may claim any size; ours are of a megabyte and a frame.
_MOST_UNPACKED = 1 << 28
_MOST_WINDOW = 1 << 27


class Message(NamedTuple):
    """A message: its topic and the name of its schema, its number, its time in nanoseconds, its bytes."""

    topic: str
    schema: str
    sequence: int
    time: int
    data: bytes


class Chunks:
    """Lists of messages, one a chunk.

    Attributes
    ----------
    complete : bool
        Whether the file ended as a finished one does; known after the last chunk.

    Raises
    ------
    ValueError
        While it is iterated, where the file is damaged: what came before is right.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.complete = path, False
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}

    def __iter__(self) -> Generator[list[Message], None, None]:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            start = file.read(len(MAGIC))
            if start != MAGIC:
                raise ValueError("it does not begin as an MCAP file does")
            checksum = zlib.crc32(start)
            while (record := _next(file, size)) is not None:
                opcode, head, content = record
                if opcode == _DATA_END:
                    # Records between chunks are in no other checksum: if a chunk was made one of them, this tells.
                    if len(content) != 4 or struct.unpack("<I", content)[0] != checksum:
                        raise ValueError(
                            "the checksum of the whole is wrong: a part between its chunks is damaged"
                        )
                    self.complete = True
                    return
                checksum = zlib.crc32(content, zlib.crc32(head, checksum))
                if opcode == _CHUNK:
                    yield self._messages(_unpacked(content))

    def _messages(self, content: bytes) -> list[Message]:
        found = []
        place = 0
        while place < len(content):
            opcode, length = _RECORD.unpack_from(content, place)
            place += _RECORD.size
            if length > len(content) - place:
                raise ValueError("a record is longer than its chunk")
            record = content[place : place + length]
            place += length
            if opcode == _SCHEMA:
                (number,) = struct.unpack_from("<H", record)
                self._schemas[number], _ = _text(record, 2)
            elif opcode == _CHANNEL:
                number, schema = struct.unpack_from("<HH", record)
                topic, end = _text(record, 4)
                encoding, _ = _text(record, end)
                if encoding != "cdr":
                    raise ValueError(f"messages of {topic!r} are encoded as {encoding!r}; allowed: cdr")
                self._channels[number] = topic, self._schemas.get(schema, "")
            elif opcode == _MESSAGE:
                number, sequence, time, _ = _MESSAGE_START.unpack_from(record)
                if number not in self._channels:
                    raise ValueError(f"a message is of channel {number}, which there is none of")
                found.append(Message(*self._channels[number], sequence, time, record[_MESSAGE_START.size :]))
        return found


def _next(file: BinaryIO, size: int) -> tuple[int, bytes, bytes] | None:
    """The next record: its kind, its first bytes and the others; None if the file ends before it does."""
    head = file.read(_RECORD.size)
    if len(head) < _RECORD.size:
        return None
    opcode, length = _RECORD.unpack(head)
    if length > size - file.tell():
        return None
    content = file.read(length)
    return (opcode, head, content) if len(content) == length else None


def _unpacked(content: bytes) -> bytes:
    """What a chunk holds, as its checksum says."""
    _, _, size, checksum = _CHUNK_START.unpack_from(content)
    compression, place = _text(content, _CHUNK_START.size)
    (length,) = struct.unpack_from("<Q", content, place)
    packed = content[place + 8 :]
    if length != len(packed):
        raise ValueError(f"a chunk claims {length} bytes and has {len(packed)}")
    if size > _MOST_UNPACKED:
        raise ValueError(f"a chunk claims to unpack to {size} bytes; allowed: up to {_MOST_UNPACKED}")
    if compression == "zstd":
        reader = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).stream_reader(BytesIO(packed))
        packed = reader.read(size + 1)
    elif compression:
        raise ValueError(f"a chunk is compressed as {compression!r}; allowed: zstd, or not at all")
    if len(packed) != size or zlib.crc32(packed) != checksum:
        raise ValueError("the checksum of a chunk is wrong")
    return packed


def _text(content: bytes, place: int) -> tuple[str, int]:
    """A text with its length before it, and where it ends."""
    (length,) = struct.unpack_from("<I", content, place)
    end = place + 4 + length
    if end > len(content):
        raise ValueError("a text is longer than its record")
    return content[place + 4 : end].decode(), end
