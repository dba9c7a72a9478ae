"""Codes as objects: they add up, and know of which rug and of what sums they are."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import as_tensor
from persianrug.encoders.base import Encoder
from persianrug.rounding import MOST_BITS


@dataclass(frozen=True)
class Mixture:
    """What every row of codes is the sum of: vectors drawn independently, each times a number.

    Parameters
    ----------
    terms : int
        How many vectors.
    weight, power : float
        Sums of their numbers, and of the squares of these.
    signed : bool
        Whether one of the numbers is negative.
    noise : float
        Variance that rounding has left on every entry of the code.
    """

    terms: int = 1
    weight: float = 1.0
    power: float = 1.0
    signed: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", checks.integer("terms", self.terms, 1))
        object.__setattr__(self, "weight", checks.finite("weight", self.weight))
        object.__setattr__(self, "power", checks.positive("power", self.power))
        object.__setattr__(self, "signed", checks.flag("signed", self.signed))
        object.__setattr__(self, "noise", checks.not_negative("noise", self.noise))

    def __add__(self, other: Mixture) -> Mixture:
        return Mixture(
            self.terms + other.terms,
            self.weight + other.weight,
            self.power + other.power,
            self.signed or other.signed,
            self.noise + other.noise,
        )

    def scaled(self, factor: float) -> Mixture:
        """That of the same rows times a number."""
        square = factor * factor
        return Mixture(
            self.terms, factor * self.weight, square * self.power, self.signed or factor < 0, square * self.noise
        )

    def agrees(self, other: Mixture) -> bool:
        """Whether it is the other, but for how another machine rounds the noise."""
        return replace(self, noise=other.noise) == other and math.isclose(self.noise, other.noise, rel_tol=1e-6)

    @property
    def single(self) -> bool:
        """Whether rows are vectors as they were encoded."""
        return self.terms == 1 and self.weight == 1

    @property
    def words(self) -> str:
        """What every row is, for people, empty where it is a vector as it was encoded."""
        factor = self.weight / self.terms
        alike = math.isclose(self.power, self.terms * factor * factor, rel_tol=1e-9)
        times = "" if math.isclose(factor, 1, rel_tol=1e-9) else f"times {factor:.6g}"
        if self.terms == 1:
            return times
        if not alike:
            return f"weighted sums of {self.terms}"
        return f"sums of {self.terms} {times}".rstrip()

    def recipe(self) -> dict[str, Any]:
        """What it is made from, as a JSON object."""
        return asdict(self)


def digest(recipe: dict[str, Any]) -> str:
    """SHA-256 of a recipe, which tells rugs apart."""
    found = hashlib.sha256()
    # Part by part: of profiles it has some hundred megabytes.
    for part in json.JSONEncoder(sort_keys=True).iterencode(recipe):
        found.update(part.encode())
    return found.hexdigest()


def places(rows: Any, count: int, where: str = "") -> NDArray[np.int64]:
    """The numbers (k,), from 0 on, of some of `count` rows, in the order asked.

    Parameters
    ----------
    rows : int, slice, list or array of ints, or mask (count,)
        Negative numbers count from the end.
    where : str
        What messages say of the count.

    Raises
    ------
    IndexError
        If there is no such row.
    ValueError
        If rows are given in another way.
    """
    allowed = f"an integer, a slice, a list or array of integers, or a mask of {count}"
    if isinstance(rows, slice):
        return np.arange(*rows.indices(count), dtype=np.int64)
    try:
        found = np.asarray(rows)
    except (TypeError, ValueError):
        found = np.asarray(None)
    if found.dtype == bool and found.ndim == 1:
        if len(found) != count:
            raise ValueError(f"rows is a mask of {len(found)}; allowed: a mask of {count}{where}")
        return np.flatnonzero(found)
    if found.ndim == 1 and not len(found):
        return np.empty(0, dtype=np.int64)
    if found.ndim == 0 and isinstance(rows, int) and not isinstance(rows, bool):
        # Of any size.
        found = np.asarray(rows, dtype=object)
    elif found.ndim > 1 or found.dtype.kind not in "iu":
        given = checks.shown(rows) if found.ndim == 0 else f"an array of {found.dtype} of shape {found.shape}"
        raise ValueError(f"rows is {given}; allowed: {allowed}")
    found = found.reshape(-1)
    for row in (found.min(), found.max()):
        if not -count <= row < count:
            raise IndexError(f"row is {row}; allowed: {f'up to {count - 1}' if count else 'none'}{where}")
    numbers = found.astype(np.int64)
    return np.where(numbers < 0, numbers + count, numbers)


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of rows by one encoder, that add up: the sum of two codes is the code of the sum.

    Sums, differences and multiples of codes are codes again. `Sketch.decode` reads them by how what they then
    are is distributed, where the vectors in a sum are taken to be drawn independently. NaN entries are missing.

    Parameters
    ----------
    values : float32 or float64 array or tensor (rows, n_dense)
    encoder : Encoder
    mixture : Mixture
        What every row is the sum of.
    bits : int, optional
        Entries are on the 2^bits levels of the sketch that made them.

    Raises
    ------
    ValueError
        If values are of another kind or shape, or, in arithmetic, if encoders or numbers of rows differ.
    """

    values: Float[NDArray[Any], "rows n_dense"] | Float[Tensor, "rows n_dense"]
    encoder: Encoder
    mixture: Mixture = field(default_factory=Mixture)
    bits: int | None = None

    # So that NumPy's numbers and arrays leave arithmetic to this class.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        checks.instance("encoder", self.encoder, Encoder)
        checks.instance("mixture", self.mixture, Mixture)
        if self.bits is not None:
            object.__setattr__(self, "bits", checks.integer("bits", self.bits, 1, MOST_BITS))
        tensor = as_tensor("values", self.values, self.encoder.n_dense)
        checks.real("values", tensor)
        if tensor.ndim != 2:
            raise ValueError(
                f"values has shape {tuple(tensor.shape)}; allowed: two axes, (rows, {self.encoder.n_dense})"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the encoder's recipe: codes add up where these are the same."""
        return digest(self.encoder.recipe())

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, n_dense)."""
        return (len(self.values), self.encoder.n_dense)

    @property
    def dtype(self) -> Any:
        """That of the values."""
        return self.values.dtype

    @property
    def missing(self) -> NDArray[np.int64]:
        """How many entries are missing of each row, (rows,)."""
        return np.asarray(torch.isnan(as_tensor("values", self.values)).sum(dim=1).cpu())

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        terms = f", {self.mixture.words}" if self.mixture.words else ""
        bits = "" if self.bits is None else f", {self.bits} bits"
        return f"Codes({len(self)} rows of {self.encoder}{terms}{bits})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self.values.detach().cpu().numpy() if isinstance(self.values, Tensor) else self.values
        return np.array(values, dtype=dtype) if copy else np.asarray(values, dtype=dtype)

    def __getitem__(self, rows: Any) -> Codes:
        """Some of the rows, by integers, a slice or a mask; a single one stays a row of codes.

        Raises
        ------
        IndexError
            If there is no such row.
        ValueError
            If rows are given in another way.
        """
        if isinstance(rows, slice) and (rows.step is None or int(rows.step) > 0):
            # No copy.
            return replace(self, values=self.values[rows])
        chosen = places(rows.cpu() if isinstance(rows, Tensor) else rows, len(self))
        if isinstance(self.values, Tensor):
            return replace(self, values=self.values[torch.from_numpy(chosen).to(self.values.device)])
        return replace(self, values=self.values[chosen])

    def __add__(self, other: Codes) -> Codes:
        self._check_same(checks.instance("other", other, Codes))
        return Codes(self.values + other.values, self.encoder, self.mixture + other.mixture)

    def __neg__(self) -> Codes:
        return self * -1.0

    def __sub__(self, other: Codes) -> Codes:
        return self + -checks.instance("other", other, Codes)

    # Of arrays, and of the 0 that Python's sum begins with: codes add up to codes, and have a sum of their own.
    __radd__ = __rsub__ = __add__

    def __mul__(self, factor: float) -> Codes:
        number = checks.finite("factor", factor, "a finite number other than 0")
        if number == 0:
            raise ValueError(f"factor is {factor}; allowed: a finite number other than 0")
        if number == 1:
            return self
        return Codes(self.values * number, self.encoder, self.mixture.scaled(number))

    __rmul__ = __mul__

    def __truediv__(self, factor: float) -> Codes:
        number = checks.finite("factor", factor, "a finite number other than 0")
        return self * (1 / number if number else number)

    def sum(self) -> Codes:
        """The code of the sum of all rows, one row."""
        if not len(self):
            raise ValueError("codes have no rows; allowed: at least one")
        one, rows = self.mixture, len(self)
        every = Mixture(rows * one.terms, rows * one.weight, rows * one.power, one.signed, rows * one.noise)
        return Codes(self.values.sum(0)[None], self.encoder, every)

    def erase(self, entries: ArrayLike | float, seed: int = 0) -> Codes:
        """The same with entries missing.

        Parameters
        ----------
        entries : bool array (n_dense,) or (rows, n_dense), or float in [0, 1]
            Which ones, or what share of each row, rounded to a whole number, at random.
        seed : int >= 0
            Of which are missing.

        Raises
        ------
        ValueError
            If the mask has another shape, or the share is out of its range.
        """
        if not isinstance(entries, list | tuple) and getattr(entries, "shape", ()) == ():
            share = checks.finite("entries", entries, "a number in [0, 1]")  # type: ignore[arg-type]
            if not 0 <= share <= 1:
                raise ValueError(f"entries is {checks.shown(entries)}; allowed: a number in [0, 1], or a mask")
            keys = np.random.default_rng(checks.seed(seed)).random(self.shape)
            mask = keys.argsort(axis=1).argsort(axis=1) < round(share * self.shape[1])
        else:
            try:
                mask = np.asanyarray(entries.cpu() if isinstance(entries, Tensor) else entries)
            except (TypeError, ValueError, RuntimeError):
                mask = np.empty(0, dtype=bool)
            if (
                isinstance(mask, np.ma.MaskedArray)
                or mask.dtype != bool
                or mask.shape not in (self.shape, self.shape[1:])
            ):
                raise ValueError(
                    f"entries has shape {mask.shape} of {mask.dtype!s}; "
                    f"allowed: bool of shape {self.shape[1:]} or {self.shape}"
                )
            mask = np.broadcast_to(mask, self.shape)
        return replace(self, values=self._filled(self.values, mask, np.nan))

    def merge(self, *parts: Codes) -> Codes:
        """The same with entries that are missing taken from other parts of the same codes.

        Raises
        ------
        ValueError
            If a part is of another rug, other sums or another number of rows, or has another value where both
            have one.
        """
        merged: Any = self.values
        for part in parts:
            self._check_same(part)
            if part.mixture != self.mixture or part.bits != self.bits:
                raise ValueError(f"part is {part!r}; allowed: parts of the same codes as {self!r}")
            ours, theirs = np.asarray(replace(self, values=merged)), np.asarray(part)
            both = ~np.isnan(ours) & ~np.isnan(theirs)
            if not np.array_equal(ours[both], theirs[both]):
                raise ValueError(
                    "part has other values where both codes have one; allowed: parts of the same codes"
                )
            gaps = np.isnan(ours)
            merged = self._filled(merged, gaps, theirs[gaps])
        return replace(self, values=merged)

    @classmethod
    def concatenate(cls, parts: Sequence[Codes]) -> Codes:
        """Rows of several codes of one rug, one after the other.

        Raises
        ------
        ValueError
            If there are none, or they differ in rug, kind of sums or levels.
        """
        if not parts:
            raise ValueError("parts is empty; allowed: at least one")
        first = parts[0]
        for part in parts[1:]:
            if part.digest != first.digest or part.mixture != first.mixture or part.bits != first.bits:
                raise ValueError(f"part is {part!r}; allowed: codes of the same rug and sums as {first!r}")
        join: Any = torch.cat if isinstance(first.values, Tensor) else np.concatenate
        return replace(first, values=join([part.values for part in parts]))

    def _filled(self, values: Any, mask: NDArray[np.bool_], filling: Any) -> Any:
        """A copy of values with others where a mask says so."""
        if isinstance(values, Tensor):
            where = torch.from_numpy(np.array(mask)).to(values.device)
            tensor = values.clone()
            tensor[where] = torch.as_tensor(filling, dtype=values.dtype, device=values.device)
            return tensor
        out = np.array(values)
        out[mask] = filling
        return out

    def _check_same(self, other: Self) -> None:
        if not isinstance(other, Codes):
            raise ValueError(f"other is a {type(other).__name__}; allowed: Codes")
        if other.digest != self.digest:
            raise ValueError(f"other codes are of {other.encoder}; allowed: of the same rug, {self.encoder}")
        if len(other) != len(self):
            raise ValueError(f"other codes have {len(other)} rows; allowed: {len(self)}")
