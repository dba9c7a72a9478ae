"""The file format .rug: codes in chunks, each with a checksum; docs/format.md describes every byte.

    magic        8 bytes    89 52 55 47 0D 0A 1A 0A
    length       uint64     of the header
    header       JSON
    seal         16 bytes   BLAKE2b of all before
    records      each       kind (4 bytes), rows (uint32), first row (uint64), payload, BLAKE2b of seal and record

A record CODE holds rows of codes; the last record, DONE, holds none, and the number of all rows where others have
their first. All numbers are little-endian. What is cut off or damaged is seen, and what is before it can be read.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from persianrug import _checks
from persianrug._json import pack, unpack
from persianrug.codes import Codes, Mixture, digest
from persianrug.plan import Plan
from persianrug.sketch import Sketch

MAGIC = b"\x89RUG\r\n\x1a\n"
_FORMAT, _VERSION = "persianrug codes", 1
_LENGTH = struct.Struct("<Q")
_RECORD = struct.Struct("<4sIQ")
_CODE, _DONE = b"CODE", b"DONE"
_SEAL = 16
# A file may claim any size; no header is longer than this, and no chunk unless a single row is.
_MOST_HEADER = 1 << 28
_MOST_CHUNK = 1 << 26
_CHUNK = 1 << 20

_ALLOWED = "a file that compress wrote"


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


class RugWriter:
    """Writes codes to a .rug file, chunk by chunk: a process that dies leaves all whole chunks readable.

    Use it as a context manager; the file is complete once that ends without an error.

    Parameters
    ----------
    file : path, or binary file open for writing
        A path must be new; `append` goes on with a file that is there.
    sketch : Sketch
        Of which the codes are.
    mixture : Mixture, optional
        What rows are the sum of; by default they are as the sketch encodes them.
    dtype : "float32" or "float64"
        Of values, where they are not rounded.
    plan : Plan, optional
        Kept in the header, for what is expected of the codes.
    names : tuple of str, optional
        Of the features.
    chunk_rows : int >= 1, optional
        Rows of a chunk; by default what makes a MiB.

    Raises
    ------
    ValueError
        If the path exists or its folder is missing, or a parameter is out of its range.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | BinaryIO,
        sketch: Sketch,
        *,
        mixture: Mixture | None = None,
        dtype: str = "float32",
        plan: Plan | None = None,
        names: tuple[str, ...] | None = None,
        chunk_rows: int | None = None,
    ) -> None:
        _checks.one_of("dtype", dtype, ("float32", "float64"))
        self.mixture = sketch.mixture if mixture is None else mixture
        self._bits = sketch.bits if self.mixture == sketch.mixture else None
        if sketch.decoder == "topk":
            # Its features are alike, and a file has a law for each.
            raise ValueError("decoder is 'topk'; allowed in a file: the others")
        recipe = sketch.recipe()
        self._digest = digest(recipe["encoder"])
        # With as many numbers as there are features, so that no small file makes a large array.
        source = sketch.source.repeated(sketch.rug.n_sparse).recipe()
        layout = Layout(
            sketch.rug.n_dense,
            {"float32": "<f4", "float64": "<f8"}[dtype],
            self._bits,
            sketch.quantiser.step if self._bits and sketch.quantiser else 0.0,
            sketch.mean_code if self._bits else np.zeros(0),
        )
        self._layout = layout
        if chunk_rows is None:
            chunk_rows = max(1, _CHUNK // layout.row_bytes)
        self.chunk_rows = _checks.integer("chunk_rows", chunk_rows, 1, max(1, _MOST_CHUNK // layout.row_bytes))
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "n_sparse": sketch.rug.n_sparse,
            "n_dense": layout.n_dense,
            "dtype": layout.dtype.str,
            "bits": layout.bits,
            "step": layout.step,
            "centre": pack(layout.centre),
            "chunk_rows": self.chunk_rows,
            "mixture": self.mixture.recipe(),
            "recipe": {**recipe, "source": {name: pack(value) for name, value in source.items()}},
            "digest": self._digest,
            "names": None if names is None else list(names),
            "plan": None if plan is None else plan.recipe(),
        }
        text = json.dumps(header).encode()
        if len(text) > _MOST_HEADER:
            raise ValueError(f"the header takes {len(text)} bytes; allowed: up to {_MOST_HEADER}")
        start = MAGIC + _LENGTH.pack(len(text)) + text
        self._seal = _checksum(start)
        self._own = isinstance(file, str | os.PathLike)
        if isinstance(file, str | os.PathLike):
            if Path(file).exists():
                raise ValueError(f"file {file} exists; allowed: a new file, or RugWriter.append")
            if not Path(file).resolve().parent.is_dir():
                raise ValueError(f"folder {Path(file).resolve().parent} is missing; allowed: an existing folder")
            self._file: BinaryIO = Path(file).open("xb")  # noqa: SIM115
        else:
            self._file = file
        self._pending: list[NDArray[Any]] = []
        self._waiting = 0
        self._closed = False
        self.count = 0
        self._file.write(start + self._seal)
        self._file.flush()

    @classmethod
    def append(cls, path: str | os.PathLike[str]) -> Self:
        """A writer that goes on with a file, after its last whole chunk.

        Raises
        ------
        ValueError
            If the file cannot be read, or is damaged before its end.
        """
        with RugReader(path) as reader:
            if reader.problem is not None and not reader.cut_off:
                raise ValueError(f"rug file {path} is damaged: {reader.problem}; allowed: {_ALLOWED}")
            # A chunk that the system never stored has its length, and no more.
            if len(reader):
                _ = reader[-1]
            writer = cls.__new__(cls)
            writer.mixture, writer._bits, writer._layout = reader.mixture, reader.bits, reader._layout
            writer.chunk_rows, writer._seal, writer.count = reader.chunk_rows, reader._seal, len(reader)
            writer._digest = reader.digest
            writer._pending, writer._waiting, writer._own, writer._closed = [], 0, True, False
            end = reader._end
        try:
            writer._file = Path(path).open("r+b")  # noqa: SIM115
        except OSError as error:
            raise ValueError(
                f"rug file {path} cannot be written: {error.strerror}; allowed: a writable file"
            ) from None
        writer._file.truncate(end)
        writer._file.seek(end)
        return writer

    def write(self, codes: Codes) -> None:
        """Add rows of codes to those that the next chunks are made of.

        Raises
        ------
        ValueError
            If the codes are of another rug, sum or rounding, or have entries missing where entries are rounded.
        """
        if codes.digest != self._digest:
            raise ValueError(f"codes are of {codes.encoder}; allowed: codes of the rug that the file is of")
        if not codes.mixture.agrees(self.mixture) or codes.bits != self._bits:
            raise ValueError(f"codes are {codes!r} of {codes.mixture}; allowed in this file: {self.mixture}, "
                             f"bits {self._bits}")  # fmt: skip
        values = np.asarray(codes)
        if self._bits is not None and np.isnan(values).any():
            raise ValueError("codes have entries missing; allowed where entries are rounded: whole codes")
        # Copied, since the caller may use its array again.
        self._pending.append(np.array(values))
        self._waiting += len(values)
        if self._waiting >= self.chunk_rows:
            rows = np.concatenate(self._pending)
            whole = len(rows) - len(rows) % self.chunk_rows
            for start in range(0, whole, self.chunk_rows):
                self._record(rows[start : start + self.chunk_rows])
            self._pending, self._waiting = [rows[whole:].copy()], len(rows) - whole

    def flush(self) -> None:
        """Write all rows so far, in a chunk that may be short, and have the system store them."""
        self._write_pending()
        if self._own:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is left, and the end; a second time is of no effect."""
        if self._closed:
            return
        self._closed = True
        self._write_pending()
        self._seal_record(_RECORD.pack(_DONE, 0, self.count))
        if self._own:
            self.flush()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._own:
            self._file.close()

    def _write_pending(self) -> None:
        if self._waiting:
            self._record(np.concatenate(self._pending))
            self._pending, self._waiting = [], 0

    def _record(self, rows: NDArray[Any]) -> None:
        self._seal_record(_RECORD.pack(_CODE, len(rows), self.count) + self._layout.pack(rows))
        self.count += len(rows)

    def _seal_record(self, content: bytes) -> None:
        # At once, so that a process that dies leaves a whole record or a part of it, and nothing after that.
        self._file.write(content + _checksum(self._seal, content))
        self._file.flush()


class RugReader:
    """Reads a .rug file: `len`, rows by index or slice, and all of them in chunks.

    Every chunk that is read has its checksum compared. A file that was cut off, as by a crash, or damaged, is open
    for the rows before that; `problem` says what is wrong with the rest.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    sketch : Sketch
        Which made the codes, and reads them.
    mixture : Mixture
    bits : int or None
    names : tuple of str, or None
    plan : dict or None
        What was expected of the codes, as `Plan.recipe`.
    problem : str or None
        What is wrong with the file after the rows that can be read.
    cut_off : bool
        Whether that is only that its end is missing.

    Raises
    ------
    ValueError
        If the file is missing, is none, is of another version, claims an impossible size or has a damaged header.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        target = Path(path)
        if not target.is_file():
            raise ValueError(f"rug file {path} is missing; allowed: {_ALLOWED}")
        try:
            self._file: BinaryIO = target.open("rb")
        except OSError as error:
            raise ValueError(f"rug file {path} cannot be read: {error.strerror}; allowed: {_ALLOWED}") from None
        try:
            self._open(target.stat().st_size)
            self._scan(target.stat().st_size)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def stream(cls, file: BinaryIO) -> Self:
        """A reader of a pipe, whose rows come once, in `chunks`; errors as above."""
        reader = cls.__new__(cls)
        reader._path, reader._file = "-", file
        reader._open(None)
        reader._records = None
        reader.problem, reader.cut_off = None, False
        return reader

    def _open(self, size: int | None) -> None:
        """Read and check the header."""
        start = _exactly(self._file, len(MAGIC) + _LENGTH.size)
        if start[: len(MAGIC)] != MAGIC or len(start) < len(MAGIC) + _LENGTH.size:
            raise self._error("is no rug file")
        (length,) = _LENGTH.unpack(start[len(MAGIC) :])
        if length > _MOST_HEADER or (size is not None and len(start) + length + _SEAL > size):
            raise self._error(f"claims a header of {length} bytes, more than it can have")
        text = _exactly(self._file, length)
        self._seal = _exactly(self._file, _SEAL)
        if _checksum(start, text) != self._seal:
            raise self._error("is damaged: the checksum of its header does not fit")
        self._end = len(start) + length + _SEAL
        try:
            header = json.loads(text)
            found = header.get("format"), header.get("version")
            if found != (_FORMAT, _VERSION):
                raise self._error(
                    f"has format {found[0]}, version {found[1]}", f"format {_FORMAT}, version {_VERSION}"
                )
            self._read_header(header)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            if str(error).startswith("rug file"):
                raise
            raise self._error(f"has a header of no codes: {' '.join(str(error).split())}") from None

    def _read_header(self, header: dict[str, Any]) -> None:
        recipe = header["recipe"]
        source = {name: unpack(value) for name, value in recipe["source"].items()}
        self.sketch = Sketch.from_recipe({**recipe, "source": source})
        rug = self.sketch.rug
        self.digest = digest(rug.recipe())
        claimed = header["n_sparse"], header["n_dense"], header["digest"]
        if self.sketch.source.n_sparse != rug.n_sparse or claimed != (rug.n_sparse, rug.n_dense, self.digest):
            raise ValueError("its sizes do not fit its recipe")
        self.mixture = Mixture(**header["mixture"])
        self.bits: int | None = header["bits"]
        if self.bits is not None:
            _checks.integer("bits", self.bits, 1, 16)
        if self.bits not in (None, self.sketch.bits):
            raise ValueError("its bits do not fit its recipe")
        dtype = _checks.one_of("dtype", header["dtype"], ("<f4", "<f8"))
        centre = np.asarray(unpack(header["centre"]), dtype=np.float64)
        if centre.shape != ((0,) if self.bits is None else (rug.n_dense,)):
            raise ValueError("its centre has another size")
        self._layout = Layout(rug.n_dense, dtype, self.bits, _checks.finite("step", header["step"]), centre)
        most = max(1, _MOST_CHUNK // self._layout.row_bytes)
        self.chunk_rows = _checks.integer("chunk_rows", header["chunk_rows"], 1, most)
        self.names = None if header["names"] is None else tuple(map(str, header["names"]))
        if self.names is not None and len(self.names) != rug.n_sparse:
            raise ValueError(f"it has {len(self.names)} names for {rug.n_sparse} features")
        self.plan: dict[str, Any] | None = header["plan"]
        if self.plan is not None:
            for name in ("law", "loss"):
                _checks.not_negative(f"plan's {name}", self.plan[name])

    def _scan(self, size: int) -> None:
        """Find the records by their heads, up to the first that cannot be one."""
        self._records: list[tuple[int, int, int]] | None = []
        self._first: NDArray[np.int64]
        count, place = 0, self._end
        self.problem, self.cut_off = None, False
        while True:
            self._file.seek(place)
            head = self._file.read(_RECORD.size)
            if len(head) < _RECORD.size:
                self.problem, self.cut_off = f"it is cut off after {count} rows", True
                break
            kind, rows, first = _RECORD.unpack(head)
            following = place + _RECORD.size + rows * self._layout.row_bytes + _SEAL
            if kind == _CODE and 1 <= rows <= self.chunk_rows and first == count:
                if following > size:
                    self.problem, self.cut_off = f"it is cut off after {count} rows", True
                    break
                self._records.append((place, rows, first))
                count, place = count + rows, following
            elif kind == _DONE and rows == 0 and first == count:
                seal = self._file.read(_SEAL)
                if len(seal) < _SEAL:
                    self.problem, self.cut_off = f"it is cut off after {count} rows", True
                elif seal != _checksum(self._seal, head):
                    self.problem = "the checksum of its end does not fit"
                elif following != size:
                    self.problem = f"{size - following} bytes follow its end"
                break
            else:
                self.problem = f"after {count} rows there is no chunk"
                break
        if self.cut_off and self._ends_well(size):
            # What claims to go beyond the end of a file that has its end is no chunk.
            self.problem, self.cut_off = f"after {count} rows there is no chunk", False
        self._end, self._count = place, count
        self._first = np.array([first for _, _, first in self._records], dtype=np.int64)

    def _ends_well(self, size: int) -> bool:
        """Whether the file's last bytes are the record of an end."""
        self._file.seek(max(0, size - _RECORD.size - _SEAL))
        end = self._file.read()
        head, seal = end[: _RECORD.size], end[_RECORD.size :]
        return end.startswith(_DONE) and seal == _checksum(self._seal, head)

    def __len__(self) -> int:
        """How many rows can be read."""
        if self._records is None:
            raise TypeError("a pipe has no length; allowed: chunks()")
        return self._count

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self._layout.dtype.newbyteorder("=")

    @property
    def chunk_count(self) -> int:
        """How many chunks these are in."""
        return len(self._first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getitem__(self, rows: int | slice) -> Codes:
        """Codes of one row, or of a slice of rows; only their chunks are read.

        Raises
        ------
        ValueError
            If a chunk of theirs is damaged, or a row that was asked for cannot be read.
        """
        if self._records is None:
            raise TypeError("a pipe is read in order; allowed: chunks()")
        if isinstance(rows, slice):
            wanted = range(self._count)[rows]
        else:
            try:
                wanted = range(self._count)[rows : rows + 1 or None] if -self._count <= rows else range(0)
            except TypeError:
                raise ValueError(f"rows is {rows!r}; allowed: an integer or a slice") from None
            if not len(wanted):
                raise IndexError(
                    f"row is {rows}; allowed: up to {self._count - 1}, as can be read of {self._path}"
                )
        if not len(wanted):
            return self._codes(np.empty((0, self._layout.n_dense), self._layout.dtype.newbyteorder("=")))
        low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        start, stop = np.searchsorted(self._first, [low, high], side="right")
        records = self._records[start - 1 : stop]
        values = np.concatenate([self._chunk(*record) for record in records])
        return self._codes(values[np.asarray(wanted) - records[0][2]])

    def chunks(self) -> Iterator[Codes]:
        """All rows that can be read, in chunks; a pipe must come to its end.

        Raises
        ------
        ValueError
            If a chunk is damaged, or a pipe is cut off.
        """
        if self._records is not None:
            for record in self._records:
                yield self._codes(self._chunk(*record))
            return
        count = 0
        while True:
            head = _exactly(self._file, _RECORD.size)
            if len(head) < _RECORD.size:
                raise self._error(f"is cut off after {count} rows")
            kind, rows, first = _RECORD.unpack(head)
            code = kind == _CODE and 1 <= rows <= self.chunk_rows and first == count
            if not code and not (kind == _DONE and rows == 0 and first == count):
                raise self._error(f"is damaged: after {count} rows there is no chunk")
            content = _exactly(self._file, rows * self._layout.row_bytes + _SEAL)
            values = self._checked(head, content, rows, first)
            if not code:
                if self._file.read(1):
                    raise self._error("is damaged: more follows its end")
                return
            yield self._codes(values)
            count += rows

    def verify(self) -> int:
        """Read all chunks and compare all checksums; the number of rows.

        Raises
        ------
        ValueError
            If anything is wrong.
        """
        rows = sum(len(codes) for codes in self.chunks())
        if self.problem is not None:
            raise self._error(f"is damaged: {self.problem}")
        return rows

    def _chunk(self, place: int, rows: int, first: int) -> NDArray[Any]:
        self._file.seek(place)
        head = self._file.read(_RECORD.size)
        return self._checked(head, self._file.read(rows * self._layout.row_bytes + _SEAL), rows, first)

    def _checked(self, head: bytes, content: bytes, rows: int, first: int) -> NDArray[Any]:
        whole = len(content) == rows * self._layout.row_bytes + _SEAL
        body, seal = content[:-_SEAL], content[-_SEAL:]
        if not whole or _checksum(self._seal, head, body) != seal:
            raise self._error(f"is damaged: the checksum of rows {first} to {first + rows} does not fit")
        return self._layout.unpack(body)

    def _codes(self, values: NDArray[Any]) -> Codes:
        return Codes(values, self.sketch.rug, self.mixture, self.bits)

    def _error(self, what: str, allowed: str = _ALLOWED) -> ValueError:
        return ValueError(f"rug file {self._path} {what}; allowed: {allowed}")


def _checksum(*parts: bytes) -> bytes:
    """BLAKE2b of parts, one after the other."""
    found = blake2b(digest_size=_SEAL)
    for part in parts:
        found.update(part)
    return found.digest()


def _exactly(file: BinaryIO, size: int) -> bytes:
    """So many bytes of a file or pipe, or what there is, read in steps: a claim alone takes no memory."""
    parts = []
    while size > 0:
        part = file.read(min(size, _CHUNK))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
