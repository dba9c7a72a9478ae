"""Reads .rug files, without trust."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.arrays import bounded
from persianrug._support.json import unpack, unpacked
from persianrug.sketches.codes import Codes, Mixture, digest, places
from persianrug.sketches.rug_layout import (
    ALLOWED,
    CODE,
    DONE,
    FORMAT,
    LENGTH,
    LIKE_VERSION,
    MAGIC,
    MOST_CHUNK,
    MOST_HEADER,
    MOST_NAMES,
    NAMED_VERSION,
    NAMES,
    RECORD,
    SEAL,
    SHARED,
    VERSION,
    Layout,
    checksum,
    exactly,
    unpack_names,
)
from persianrug.sketches.sketch import Sketch


class RugReader:
    """Reads a .rug file: `len`, rows as of an array, and all of them in chunks.

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
        Of the features.
    named : bool
        Whether rows have names, too.
    plan : dict or None
        What was expected of the codes, as `Plan.recipe`.
    like : str or None
        The name of another file in the same folder, which holds the sketch.
    problem : str or None
        What is wrong with the file after the rows that can be read.
    cut_off : bool
        Whether that is only that its end is missing.

    Raises
    ------
    ValueError
        If the file is missing, is none, is of another version, claims an impossible size or has a damaged header.
    """

    _versions: tuple[int, ...] = (VERSION, NAMED_VERSION, LIKE_VERSION)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ValueError(
                f"path is a {type(path).__name__}; allowed: a path, or RugReader.stream(file) of an open file"
            )
        self._path = checks.path("path", path)
        target = Path(path)
        if not target.is_file():
            raise ValueError(f"rug file {path} is missing; allowed: {ALLOWED}")
        try:
            self._file: BinaryIO = target.open("rb")
        except OSError as error:
            raise ValueError(f"rug file {path} cannot be read: {error.strerror}; allowed: {ALLOWED}") from None
        try:
            self._open(target.stat().st_size)
            self._scan(target.stat().st_size)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def stream(cls, file: BinaryIO) -> Self:
        """A reader of a pipe, whose rows come once, in `chunks`; errors as above."""
        if not hasattr(file, "read") or isinstance(file, io.TextIOBase):
            raise ValueError(
                f"file is a {type(file).__name__}; allowed: an open binary file, or RugReader(path) of a path"
            )
        reader = cls.__new__(cls)
        reader._path, reader._file = "-", file
        reader._open(None)
        reader._records = None
        reader.problem, reader.cut_off = None, False
        return reader

    def _open(self, size: int | None) -> None:
        """Read and check the header."""
        start = exactly(self._file, len(MAGIC) + LENGTH.size)
        if start[: len(MAGIC)] != MAGIC or len(start) < len(MAGIC) + LENGTH.size:
            raise self._error("is no rug file")
        (length,) = LENGTH.unpack(start[len(MAGIC) :])
        if length > MOST_HEADER or (size is not None and len(start) + length + SEAL > size):
            raise self._error(f"claims a header of {length} bytes, more than it can have")
        text = exactly(self._file, length)
        self._seal = exactly(self._file, SEAL)
        if checksum(start, text) != self._seal:
            raise self._error("is damaged: the checksum of its header does not fit")
        self._end = len(start) + length + SEAL
        try:
            header = json.loads(text)
            found = header.get("format"), header.get("version")
            if found not in [(FORMAT, version) for version in self._versions]:
                *most, last = self._versions
                raise self._error(
                    f"has format {found[0]}, version {found[1]}",
                    f"format {FORMAT}, version {', '.join(map(str, most))} or {last}",
                )
            self.like: str | None = None
            if found[1] == LIKE_VERSION:
                self.named = checks.flag("named", header["named"])
                header = {**header, **self._shared(header["like"])}
            else:
                self.named = found[1] == NAMED_VERSION
                self._header = header
            self._read_header(header)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            if str(error).startswith("rug file"):
                raise
            raise self._error(f"has a header of no codes: {' '.join(str(error).split())}") from None

    def _shared(self, like: dict[str, str]) -> dict[str, Any]:
        """What the header of another file says, in the folder of this one."""
        self.like = name = like["file"]
        if Path(name).name != name or self._path == "-":
            raise self._error(f"is read with {name!r}, which is beside it", "files, and names without folders")
        try:
            with _Origin(self.folder / name) as other:
                if other._seal.hex() != like["seal"]:
                    raise self._error(f"was written with another {name}", "the file that it was written with")
                self._origin = other.origin
        except ValueError as error:
            if str(error).startswith(f"rug file {self._path} "):
                raise
            # What is allowed is said once, of the other file if that is there.
            if (self.folder / name).exists():
                raise ValueError(f"rug file {self._path} needs {name} beside it: {error}") from None
            raise self._error(f"needs {name} beside it, which is missing", "both files in one folder") from None
        return {key: other._header[key] for key in SHARED}

    @property
    def folder(self) -> Path:
        """Where the file is."""
        return Path(self._path).parent.resolve()

    @property
    def origin(self) -> tuple[str, dict[str, Any], bytes]:
        """The name of the file that holds the sketch, its header, and the checksum of that."""
        return (Path(self._path).name, self._header, self._seal) if self.like is None else self._origin

    def _read_header(self, header: dict[str, Any]) -> None:
        self.sketch = Sketch.from_recipe(unpacked(header["recipe"]))
        rug = self.sketch.rug
        self.digest = digest(rug.recipe())
        claimed = header["n_sparse"], header["n_dense"], header["digest"]
        if self.sketch.source.n_sparse != rug.n_sparse or claimed != (rug.n_sparse, rug.n_dense, self.digest):
            raise ValueError("its sizes do not fit its recipe")
        self.mixture = Mixture(**header["mixture"])
        self.bits: int | None = header["bits"]
        if self.bits is not None:
            checks.integer("bits", self.bits, 1, 16)
        if self.bits not in (None, self.sketch.bits):
            raise ValueError("its bits do not fit its recipe")
        dtype = checks.one_of("dtype", header["dtype"], ("<f4", "<f8"))
        centre = np.asarray(unpack(header["centre"]), dtype=np.float64)
        if centre.shape != ((0,) if self.bits is None else (rug.n_dense,)):
            raise ValueError("its centre has another size")
        bounded("its centre", torch.from_numpy(centre), rug.largest_code)
        self._layout = Layout(rug.n_dense, dtype, self.bits, checks.finite("step", header["step"]), centre)
        most = max(1, MOST_CHUNK // self._layout.row_bytes)
        self.chunk_rows = checks.integer("chunk_rows", header["chunk_rows"], 1, most)
        self.names = None if header["names"] is None else tuple(map(str, header["names"]))
        if self.names is not None and len(self.names) != rug.n_sparse:
            raise ValueError(f"it has {len(self.names)} names for {rug.n_sparse} features")
        self.plan: dict[str, Any] | None = header["plan"]
        if self.plan is not None:
            for name in ("law", "loss"):
                checks.not_negative(f"plan's {name}", self.plan[name])

    def _scan(self, size: int) -> None:
        """Find the records by their heads, up to the first that cannot be one."""
        self._records: list[tuple[int, int, int]] | None = []
        self._first: NDArray[np.int64]
        count, place = 0, self._end
        self.problem, self.cut_off = None, False
        while True:
            self._file.seek(place)
            head = self._file.read(RECORD.size)
            if len(head) < RECORD.size:
                self.problem, self.cut_off = f"it is cut off after {count} rows", True
                break
            kind, rows, first = RECORD.unpack(head)
            following = place + RECORD.size + rows * self._layout.row_bytes + SEAL
            if kind == CODE and 1 <= rows <= self.chunk_rows and first == count:
                if self.named:
                    self._file.seek(following - SEAL)
                    length = self._file.read(NAMES.size)
                    # What is cut off within the length itself, is by what follows.
                    claimed = NAMES.unpack(length)[0] if len(length) == NAMES.size else 0
                    if claimed > MOST_NAMES:
                        self.problem = f"after {count} rows there is no chunk"
                        break
                    following += NAMES.size + claimed
                if following > size:
                    self.problem, self.cut_off = f"it is cut off after {count} rows", True
                    break
                self._records.append((place, rows, first))
                count, place = count + rows, following
            elif kind == DONE and rows == 0 and first == count:
                seal = self._file.read(SEAL)
                if len(seal) < SEAL:
                    self.problem, self.cut_off = f"it is cut off after {count} rows", True
                elif seal != checksum(self._seal, head):
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
        self._file.seek(max(0, size - RECORD.size - SEAL))
        end = self._file.read()
        head, seal = end[: RECORD.size], end[RECORD.size :]
        return end.startswith(DONE) and seal == checksum(self._seal, head)

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

    def __getitem__(self, rows: Any) -> Codes:
        """Codes of some rows, by an integer, a slice, a list or array of integers, or a mask; in the order asked.

        Only their chunks are read.

        Raises
        ------
        IndexError
            If there is no such row that can be read.
        ValueError
            If a chunk of theirs is damaged, or rows are given in another way.
        """
        if self._records is None:
            raise TypeError("a pipe is read in order; allowed: chunks()")
        wanted = places(rows, self._count, f", as can be read of {self._path}")
        values = np.empty((len(wanted), self._layout.n_dense), self.dtype)
        record = np.searchsorted(self._first, wanted, side="right") - 1
        order = np.argsort(record, kind="stable")
        numbers, starts = np.unique(record[order], return_index=True)
        for number, chosen in zip(numbers, np.split(order, starts[1:]), strict=False):
            values[chosen] = self._chunk(*self._records[number])[0][wanted[chosen] - self._first[number]]
        return self._codes(values)

    def row_names(self) -> tuple[str, ...] | None:
        """Names of all rows that can be read, in their order, or None where rows have none.

        Raises
        ------
        ValueError
            If a chunk is damaged.
        """
        if not self.named:
            return None
        return tuple(name for _, names in self.named_chunks() for name in names or ())

    def chunks(self) -> Iterator[Codes]:
        """All rows that can be read, in chunks; a pipe must come to its end.

        Raises
        ------
        ValueError
            If a chunk is damaged, or a pipe is cut off.
        """
        for codes, _ in self.named_chunks():
            yield codes

    def named_chunks(self) -> Iterator[tuple[Codes, tuple[str, ...] | None]]:
        """As `chunks`, each with the names of its rows, or None where rows have none."""
        if self._records is not None:
            for record in self._records:
                values, names = self._chunk(*record)
                yield self._codes(values), names
            return
        count = 0
        while True:
            head = exactly(self._file, RECORD.size)
            if len(head) < RECORD.size:
                raise self._error(f"is cut off after {count} rows")
            kind, rows, first = RECORD.unpack(head)
            code = kind == CODE and 1 <= rows <= self.chunk_rows and first == count
            if not code and not (kind == DONE and rows == 0 and first == count):
                raise self._error(f"is damaged: after {count} rows there is no chunk")
            values, names = self._content(head, rows, first)
            if not code:
                if self._file.read(1):
                    raise self._error("is damaged: more follows its end")
                return
            yield self._codes(values), names
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

    def _chunk(self, place: int, rows: int, first: int) -> tuple[NDArray[Any], tuple[str, ...] | None]:
        self._file.seek(place)
        return self._content(self._file.read(RECORD.size), rows, first)

    def _content(self, head: bytes, rows: int, first: int) -> tuple[NDArray[Any], tuple[str, ...] | None]:
        """The rows of a record after its head, and their names."""
        size, length, text = rows * self._layout.row_bytes, b"", b""
        body = exactly(self._file, size)
        named = self.named and rows > 0
        if named:
            length = exactly(self._file, NAMES.size)
            claimed = NAMES.unpack(length)[0] if len(length) == NAMES.size else 0
            # Of more than there can be, none is read, and the checksum does not fit.
            text = exactly(self._file, claimed if claimed <= MOST_NAMES else 0)
        seal = exactly(self._file, SEAL)
        if len(body) < size or checksum(self._seal, head, body, length, text) != seal:
            raise self._error(f"is damaged: the checksum of rows {first} to {first + rows} does not fit")
        try:
            names = unpack_names(text, rows) if named else None
        except (ValueError, RecursionError) as error:
            raise self._error(f"is damaged: the names of rows from {first} on cannot be read: {error}") from None
        values = self._layout.unpack(body)
        where = f"rug file {self._path} in rows {first} to {first + rows}"
        # Those that are rounded have no level for what is missing.
        bounded(where, torch.from_numpy(values), self.sketch.rug.largest_code, missing=self.bits is None)
        return values, names

    def _codes(self, values: NDArray[Any]) -> Codes:
        return Codes(values, self.sketch.rug, self.mixture, self.bits)

    def _error(self, what: str, allowed: str = ALLOWED) -> ValueError:
        return ValueError(f"rug file {self._path} {what}; allowed: {allowed}")


class _Origin(RugReader):
    """A file whose sketch another file shares, and which has its own."""

    _versions = (VERSION, NAMED_VERSION)
