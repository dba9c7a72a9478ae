"""Writes .rug files, chunk by chunk."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.arrays import as_tensor, bounded
from persianrug._support.json import pack, packed
from persianrug.sketches.codes import Codes, Mixture, digest
from persianrug.sketches.plan import Plan
from persianrug.sketches.rug_layout import (
    ALLOWED,
    CHUNK,
    CODE,
    DONE,
    FORMAT,
    LENGTH,
    LIKE_VERSION,
    MAGIC,
    MOST_CHUNK,
    MOST_HEADER,
    NAMED_VERSION,
    RECORD,
    SHARED,
    VERSION,
    Layout,
    checksum,
    pack_names,
)
from persianrug.sketches.rug_reader import RugReader
from persianrug.sketches.sketch import Sketch


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
    named : bool
        Whether rows have names, too, which `write` is given with them.
    chunk_rows : int >= 1, optional
        Rows of a chunk; by default what makes a MiB.
    like : RugReader, optional
        Of a file whose sketch, plan and names of features are those of this one, too, which keeps the other's name
        in their place: both are to be in one folder. A sketch with a covariance may be larger than the codes.

    Raises
    ------
    ValueError
        If the path exists or its folder is missing, a parameter is out of its range, or the file is of another
        sketch, rounding or folder than the one that it is like.
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
        named: bool = False,
        chunk_rows: int | None = None,
        like: RugReader | None = None,
    ) -> None:
        if not (isinstance(file, str | os.PathLike) or hasattr(file, "write")) or isinstance(file, io.TextIOBase):
            raise ValueError(f"file is a {type(file).__name__}; allowed: a path, or an open binary file")
        if not hasattr(file, "write"):
            checks.path("file", file)
        checks.instance("sketch", sketch, Sketch)
        for name, part, kind in (("mixture", mixture, Mixture), ("plan", plan, Plan)):
            if part is not None:
                checks.instance(name, part, kind)
        checks.one_of("dtype", dtype, ("float32", "float64"))
        self.mixture = sketch.mixture if mixture is None else mixture
        self._bits = sketch.bits if self.mixture == sketch.mixture else None
        if sketch.decoder == "topk":
            # Its features are alike, and a file says how each is distributed.
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
            sketch.middle if self._bits else np.zeros(0),
        )
        self._layout = layout
        if chunk_rows is None:
            chunk_rows = max(1, CHUNK // layout.row_bytes)
        self.chunk_rows = checks.integer("chunk_rows", chunk_rows, 1, max(1, MOST_CHUNK // layout.row_bytes))
        header = {
            "format": FORMAT,
            "version": NAMED_VERSION if named else VERSION,
            "n_sparse": sketch.rug.n_sparse,
            "n_dense": layout.n_dense,
            "dtype": layout.dtype.str,
            "bits": layout.bits,
            "step": layout.step,
            "centre": pack(layout.centre),
            "chunk_rows": self.chunk_rows,
            "mixture": self.mixture.recipe(),
            "recipe": packed({**recipe, "source": source}),
            "digest": self._digest,
            "names": None if names is None else list(names),
            "plan": None if plan is None else plan.recipe(),
        }
        if like is not None:
            header = _as_in(like, header, named=named)
        text = json.dumps(header).encode()
        if len(text) > MOST_HEADER:
            raise ValueError(f"the header takes {len(text)} bytes; allowed: up to {MOST_HEADER}")
        start = MAGIC + LENGTH.pack(len(text)) + text
        self._seal = checksum(start)
        self._own = isinstance(file, str | os.PathLike)
        if isinstance(file, str | os.PathLike):
            if Path(file).exists():
                raise ValueError(f"file {file} exists; allowed: a new file, or RugWriter.append")
            folder = Path(file).resolve().parent
            if not folder.is_dir():
                raise ValueError(f"folder {folder} is missing; allowed: an existing folder")
            if like is not None and like.folder != folder:
                raise ValueError(
                    f"like is in {like.folder}; allowed: a file in the folder of {file}, which is {folder}"
                )
            self._file: BinaryIO = Path(file).open("xb")  # noqa: SIM115
        else:
            self._file = file
        self.named = named
        self._pending: list[NDArray[Any]] = []
        self._names: list[str] = []
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
                raise ValueError(f"rug file {path} is damaged: {reader.problem}; allowed: {ALLOWED}")
            # A chunk that the system never stored has its length, and no more.
            if len(reader):
                _ = reader[-1]
            writer = cls.__new__(cls)
            writer.mixture, writer._bits, writer._layout = reader.mixture, reader.bits, reader._layout
            writer.chunk_rows, writer._seal, writer.count = reader.chunk_rows, reader._seal, len(reader)
            writer._digest, writer.named = reader.digest, reader.named
            writer._pending, writer._waiting, writer._own, writer._closed = [], 0, True, False
            writer._names = []
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

    def write(self, codes: Codes, names: Sequence[str] | None = None) -> None:
        """Add rows of codes, and their names where rows have some, to those that the next chunks are made of.

        Raises
        ------
        ValueError
            If the codes are of another rug, sum or rounding, have entries missing where entries are rounded, or
            hold infinity or sizes that no rows up to 1e30 have; or names are none, or not as many as rows.
        """
        if not isinstance(codes, Codes):
            raise ValueError(f"codes is a {type(codes).__name__}; allowed: Codes, as Sketch.encode makes them")
        if (names is not None) != self.named:
            allowed = "names of its rows" if self.named else "none, since its rows have none"
            raise ValueError(f"names is {'None' if names is None else 'given'}; allowed in this file: {allowed}")
        if names is not None and len(names) != len(codes):
            raise ValueError(f"names has {len(names)} names; allowed: {len(codes)}, one a row")
        if codes.digest != self._digest:
            raise ValueError(f"codes are of {codes.encoder}; allowed: codes of the rug that the file is of")
        if not codes.mixture.agrees(self.mixture) or codes.bits != self._bits:
            raise ValueError(f"codes are {codes!r} of {codes.mixture}; allowed in this file: {self.mixture}, "
                             f"bits {self._bits}")  # fmt: skip
        values = np.asarray(codes)
        if self._bits is not None and np.isnan(values).any():
            raise ValueError("codes have entries missing; allowed where entries are rounded: whole codes")
        # A reader refuses them.
        bounded("codes", as_tensor("codes", values), codes.encoder.largest_code, missing=True)
        # Copied, since the caller may use its array again.
        self._pending.append(np.array(values))
        self._names.extend(map(str, names or ()))
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
        self._seal_record(RECORD.pack(DONE, 0, self.count))
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
        names, self._names = self._names[: len(rows)], self._names[len(rows) :]
        content = self._layout.pack(rows) + (pack_names(names) if self.named else b"")
        self._seal_record(RECORD.pack(CODE, len(rows), self.count) + content)
        self.count += len(rows)

    def _seal_record(self, content: bytes) -> None:
        # At once, so that a process that dies leaves a whole record or a part of it, and nothing after that.
        self._file.write(content + checksum(self._seal, content))
        self._file.flush()


def _as_in(like: RugReader, header: dict[str, Any], *, named: bool) -> dict[str, Any]:
    """The header of a file whose sketch is in another."""
    checks.instance("like", like, RugReader)
    name, shared, seal = like.origin
    # What was planned, and features are called, is said by the other file alone.
    own = {key: header[key] for key in SHARED if key not in ("names", "plan")}
    others = sorted(key for key, value in own.items() if shared[key] != value)
    if others:
        raise ValueError(f"like is {name}, of another {', '.join(others)}; allowed: a file of the same sketch")
    rest = {key: value for key, value in header.items() if key not in SHARED}
    return {**rest, "version": LIKE_VERSION, "named": named, "like": {"file": name, "seal": seal.hex()}}
