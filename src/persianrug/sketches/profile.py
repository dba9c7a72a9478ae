"""What one pass over data learns, its *profile*: how every feature is distributed, and rows that are set aside.

Laws take features to be independent, which real ones are not. So some rows, drawn at random and bounded in number,
are held out of the fit: what a sketch loses on them is the loss to expect of other rows of this data. A sample of
the rows that were fitted gives the principal components that a linear code of the same size would keep.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from persianrug import sources
from persianrug._support import checks
from persianrug._support.arrays import Parts, plain
from persianrug._support.files import whole_file
from persianrug._support.json import pack, unpack
from persianrug._support.renamed import warn_renamed
from persianrug._support.sparse import by_rows
from persianrug.encoders.base import MOST_SPARSE
from persianrug.sketches.codes import digest
from persianrug.sketches.components import component_losses, component_losses_by_row
from persianrug.sketches.features import check_features
from persianrug.sketches.kinds import fitted_source
from persianrug.sketches.profile_parts import Kept, pack_kept, pack_rows, unpack_groups, unpack_kept, unpack_rows
from persianrug.sketches.row_sample import RowSample, outlying, row_energies
from persianrug.sources import Covariance, FeatureMoments, SecondMoments, Source
from persianrug.sources.covariance import grouped

Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]

# At most so many rows are held out, so many others are kept for their principal components, and so many entries of
# each, zeros included.
_HELD_OUT = 1024
_COMPONENTS_FROM = 2048
_MOST_ENTRIES = 1 << 23
# Of so many rows held out it is asked whether they are near copies: nearer to a row that was fitted than this part
# of what is between rows drawn at random.
_COMPARED, _NEAR = 256, 0.1
# Share of the rows that are held out, where they are few.
_SHARE = 4

# How rows held out are chosen.
WAYS = ("random", "blocks", "column", "file")

_FORMAT, _VERSION = "persianrug profile", 1
_ALLOWED = "a file that fit wrote, as `persianrug fit DATA --out profile.json` does"
# What the format was called before, which still is read.
_OLD_FORMAT = "persianrug laws"
# A profile may claim any size; more than this is not read.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Profile(Parts):
    """How the features of data are distributed, as `ProfileFitter` learns it.

    Profiles of two sets of rows add up, `one + other`, to that of both, as one pass would give it: moments are
    exact to rounding. Of the rows that either holds out, as many as one pass would hold out are held out still,
    those of the least keys, and the rest are fitted; the sample is drawn in the same way. Machines that fit parts
    of data should use seeds of their own: with the same seed all hold out rows of the same places.

    Parameters
    ----------
    source : Source
        With parameters (n_sparse,).
    rows : int
        Rows that were fitted.
    held_out : csr_array (k, n_sparse), or None
        Rows that were not, where there were enough.
    sample : csr_array (k, n_sparse), or None
        Some of those that were: the amplitudes and energies that rows have, for `Sketch.law_on`.
    energy : float, or None
        Mean over all rows, held out or not, of (x - mean)^2 per feature.
    pca : array (m,)
        Loss per feature, on the rows held out, of the first 0, 1, ... principal components of rows that were
        fitted, as many as these have.
    unseen : int
        Features that were 0 in all rows that were fitted.
    names : tuple of str, or None
        Of the features.
    kept : Kept, or None
        What merging needs; None in files that were written before profiles could be merged.
    broken : int
        Rows that are left out of those held out, since they have a hundred times the energy of any other.
    groups : array (k,) of int64, or None
        Of the rows held out, which were held out together, as blocks of rows that follow each other: rows of a
        group are not independent. None where each was drawn by itself.
    held_by : str, or None
        How the rows held out were chosen: random, blocks, column (all rows of some values) or file (those of
        another). None where that is not known, as in older files, or is not the same of profiles that were added.
    """

    source: Source
    rows: int
    held_out: Any = field(default=None, repr=False)
    pca: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    unseen: int = 0
    names: tuple[str, ...] | None = field(default=None, repr=False)
    sample: Any = field(default=None, repr=False)
    energy: float | None = None
    kept: Kept | None = field(default=None, repr=False)
    groups: NDArray[np.int64] | None = field(default=None, repr=False)
    broken: int = 0
    held_by: str | None = None

    def __add__(self, other: Profile) -> Profile:
        """The profile of the rows of both.

        Raises
        ------
        ValueError
            If they are of other features, or one was read from a file that is too old to be merged.
        """
        if not isinstance(other, Profile):
            return NotImplemented
        self.check_names(other.names, other.n_sparse, "the other profile")
        if self.kept is None or other.kept is None:
            which = "first" if self.kept is None else "second"
            raise ValueError(
                f"the {which} profile was written before profiles could be merged; "
                "allowed: those that fit writes now"
            )
        held = RowSample.of(
            [
                (self.held_out, self.kept.held_keys, self.groups),
                (other.held_out, other.kept.held_keys, other.groups),
            ],
            self.n_sparse,
        )
        sample = RowSample.of(
            [(self.sample, self.kept.sample_keys, None), (other.sample, other.kept.sample_keys, None)],
            self.n_sparse,
        )
        moments = self.kept.moments + other.kept.moments
        one, two = self.kept.second, other.kept.second
        second = None if one is None or two is None else one + two
        names = self.names if self.names is not None else other.names
        merged = _assembled(moments, second, held, sample, names, self.broken + other.broken)
        return replace(merged, held_by=self.held_by if self.held_by == other.held_by else None)

    @property
    def data_variance(self) -> float | None:
        """Variance of the features of the rows that were fitted, on average; None in files of before."""
        return None if self.kept is None else float(np.mean(self.kept.moments.variance))

    @property
    def n_sparse(self) -> int:
        """How many features there are."""
        return len(self.source.p)

    @property
    def near_copies(self) -> float | None:
        """Share of the rows held out that have a near copy among rows that were fitted.

        Of those of no small energy, the share whose squared distance to the nearest row of the sample is below a
        tenth of that of two rows drawn at random. None where no rows tell.
        """
        if self.held_out is None or self.sample is None or not self.energy:
            return None
        held = self.held_out[:_COMPARED]
        held = held[row_energies(held, self.source.mean) > _NEAR * self.energy]
        if not held.shape[0]:
            return None
        # Samples are small enough to be dense, and dense products many times as fast where few entries are 0.
        one, two = (part.astype(np.float64).toarray() for part in (held, self.sample))
        squares = (np.einsum("ij,ij->i", part, part) for part in (one, two))
        distances = np.add.outer(*squares) - 2 * one @ two.T
        nearest = distances.min(axis=1) / self.n_sparse
        return float(np.mean(nearest < _NEAR * 2 * self.energy))

    @property
    def suspect(self) -> int:
        """Rows of the sample, which were fitted, with a hundred times the energy of any other."""
        return 0 if self.sample is None else int(outlying(row_energies(self.sample, self.source.mean)).sum())

    @property
    def most_factors(self) -> int:
        """Factors that `covariance` can have, 0 where the profile does not know how features go together."""
        return 0 if self.kept is None or self.kept.second is None else self.kept.second.most_factors

    def covariance(self, rank: int, *, of_all: bool = False) -> Covariance:
        """How features go together, with so many factors, or as many as there are.

        Parameters
        ----------
        rank : int >= 0
        of_all : bool
            Of rows that were held out, too, once they have told which rank is best.

        Raises
        ------
        ValueError
            If the rank is negative, or the profile was written before that was learnt.
        """
        if self.kept is None or self.kept.second is None:
            raise ValueError(
                "the profile was written before profiles knew how features go together; "
                "allowed: those that fit writes now"
            )
        second = self.kept.second
        if of_all and self.held_out is not None:
            second = second + SecondMoments.of(self.held_out)
        found = second.covariance(rank)
        if self.sample is None:
            return found
        energies = row_energies(self.sample, self.source.mean)
        return replace(found, energies=grouped(energies)) if energies.any() else found

    def pca_loss(self, n_dense: int) -> tuple[float, int] | None:
        """Loss of the best linear code of n_dense numbers, measured, and how many components that had.

        None where no rows were held out. As many components as rows to learn them from are all there can be.
        """
        if not len(self.pca):
            return None
        components = min(n_dense, len(self.pca) - 1)
        return float(self.pca[components]), components

    def pca_losses(self, n_dense: int) -> Floats | None:
        """The loss that `pca_loss` is the mean of, of each of the rows held out, (k,); None where no rows tell."""
        if not len(self.pca) or self.sample is None:
            return None
        return component_losses_by_row(
            self.sample, self.held_out, self.source.mean, min(n_dense, len(self.pca) - 1)
        )

    def check_names(self, names: Sequence[str] | None, n_sparse: int, where: str) -> None:
        """ValueError unless data elsewhere has the features that were fitted."""
        check_features(self.names, self.n_sparse, names, n_sparse, where, "were fitted")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a .json file, whole or not at all; rows held out included.

        Raises
        ------
        ValueError
            If the path's folder is missing or not writable.
        """
        with whole_file(path) as file:
            self.write(file)

    def write(self, file: BinaryIO) -> None:
        """Write what `save` writes to an open file."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "rows": self.rows,
            "unseen": self.unseen,
            "energy": self.energy,
            "source": {name: pack(value) for name, value in self.source.recipe().items()},
            "pca": pack(self.pca),
            "names": None if self.names is None else list(self.names),
            "held_out": pack_rows(self.held_out),
            "sample": pack_rows(self.sample),
            "kept": pack_kept(self.kept),
            "groups": pack(self.groups),
            "broken": self.broken,
            "held_by": self.held_by,
        }
        content["digest"] = digest(content)
        for part in json.JSONEncoder().iterencode(content):
            file.write(part.encode())
        file.write(b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file cannot be read, is damaged, or is of another format or version.
        """
        target = Path(checks.path("path", path))
        if not target.is_file():
            raise ValueError(f"profile file {path} is missing; allowed: {_ALLOWED}")
        if target.stat().st_size > _MOST_BYTES:
            raise ValueError(f"profile file {path} has more than {_MOST_BYTES} bytes; allowed: {_ALLOWED}")
        try:
            content = target.read_bytes()
        except OSError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"profile file {path} cannot be read: {reason}; allowed: {_ALLOWED}") from None
        return cls.of_bytes(content, path)

    @classmethod
    def of_bytes(cls, text: bytes, path: str | os.PathLike[str]) -> Profile:
        """The profile that a file holds; `path` is what messages call it. Errors as of `load`."""
        try:
            content = json.loads(text)
            found = content.get("format"), content.get("version")
        except (ValueError, AttributeError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"profile file {path} cannot be read: {reason}; allowed: {_ALLOWED}") from None
        if found == (_OLD_FORMAT, _VERSION):
            warn_renamed(f"format {_OLD_FORMAT!r} of {path}", f"{_FORMAT!r}, which fit writes")
        elif found != (_FORMAT, _VERSION):
            raise ValueError(
                f"profile file {path} has format {found[0]}, version {found[1]}; "
                f"allowed: format {_FORMAT}, version {_VERSION}"
            )
        if content.pop("digest", "") != digest(content):
            raise ValueError(f"profile file {path} is damaged: its digest does not fit; allowed: {_ALLOWED}")
        try:
            source = sources.from_recipe({key: unpack(part) for key, part in content["source"].items()})
            if source.n_sparse is None:
                raise ValueError("its features are all alike")
            names, pca = content["names"], np.asarray(unpack(content["pca"]))
            if names is not None and len(names) != source.n_sparse:
                raise ValueError(f"it has {len(names)} names for {source.n_sparse} features")
            if pca.ndim != 1 or pca.dtype != np.float64 or not np.isfinite(pca).all():
                raise ValueError("its losses of principal components are no numbers")
            rows = checks.integer("rows", content["rows"], 0)
            held_out, sample = (unpack_rows(content[part], source.n_sparse) for part in ("held_out", "sample"))
            return cls(
                source,
                rows,
                held_out,
                pca,
                checks.integer("unseen", content["unseen"], 0, source.n_sparse),
                None if names is None else tuple(map(str, names)),
                sample,
                None if content["energy"] is None else checks.not_negative("energy", content["energy"]),
                unpack_kept(content.get("kept"), rows, source.n_sparse, held_out, sample),
                unpack_groups(content.get("groups"), held_out),
                checks.integer("broken", content.get("broken", 0), 0),
                None if (by := content.get("held_by")) is None else checks.one_of("held_by", by, WAYS),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"profile file {path} holds no profile of this version: {error!s}; allowed: {_ALLOWED}"
            ) from None


class ProfileFitter:
    """One pass over rows of data, in blocks of any size and in bounded memory.

    Parameters
    ----------
    n_sparse : int >= 2
        Number of features.
    seed : int >= 0
        Of which rows are held out.
    """

    def __init__(self, n_sparse: int, seed: int = 0) -> None:
        self.n_sparse = checks.integer("n_sparse", n_sparse, 2, MOST_SPARSE)
        self._keys = np.random.PCG64(checks.seed(seed))
        n_sparse = self.n_sparse
        self._held = RowSample(n_sparse, _most(_HELD_OUT, n_sparse))
        self._others = RowSample(n_sparse, _most(_COMPONENTS_FROM, n_sparse))
        self._moments = FeatureMoments(
            0, np.zeros(n_sparse, dtype=np.int64), np.zeros(n_sparse), np.zeros(n_sparse), math.inf
        )
        self._second = SecondMoments.none(n_sparse)
        self._seen = 0

    @property
    def rows(self) -> int:
        """How many rows were seen."""
        return self._seen

    def add(self, rows: Any, groups: Any = None) -> None:
        """Learn from a block of rows, an array or a SciPy sparse matrix (rows, n_sparse).

        Parameters
        ----------
        rows : array or SciPy sparse matrix
        groups : array (rows,) of int64, optional
            Which rows are held out, by the number of the group of each, and -1 for those that are not; see
            `HoldOut.groups`. By default they are drawn at random, and none is once a block had groups.

        Raises
        ------
        ValueError
            If rows have another shape, are not finite, or beyond 1e30, or groups come after rows drawn at random.
        """
        checks.rows("rows", rows, self.n_sparse)
        if not rows.shape[0]:
            return
        rows = by_rows(rows) if hasattr(rows, "tocsr") else plain(rows)
        if rows.dtype not in (np.float32, np.float64) or not rows.dtype.isnative:
            # SciPy has no sparse matrices of some types.
            rows = rows.astype(np.float64)
        # Before anything is learned: rows that are held out have no moments taken.
        entries = rows.data if hasattr(rows, "tocsr") else rows
        if entries.size and not max(-float(entries.min()), float(entries.max())) <= checks.BEYOND:
            raise ValueError(
                f"rows holds NaN, or sizes beyond {checks.LARGEST:g}; allowed: finite numbers up to that"
            )
        grouped_before = self._held.groups is not None
        if groups is not None:
            groups = np.asarray(groups)
            if groups.shape != (rows.shape[0],) or groups.dtype != np.int64:
                raise ValueError(f"groups is {checks.shown(groups)}; allowed: an int64 array ({rows.shape[0]},)")
            if self._seen and not grouped_before:
                raise ValueError("groups come after rows without any; allowed: groups from the first rows on")
        elif grouped_before:
            groups = np.full(rows.shape[0], -1)
        keys = self._keys.random_raw(rows.shape[0])
        self._seen += rows.shape[0]
        if groups is not None:
            chosen = groups >= 0
            # Those that leave were held out with others of their group, and are not fitted.
            self._held.add(keys[chosen], rows[chosen], groups[chosen])
            fitted = [(keys[~chosen], rows[~chosen])]
        else:
            entering, leaving_keys, leaving = self._held.add(keys, rows)
            # Most blocks of a long stream enter as they are.
            staying = rows[~entering] if entering.any() else rows
            fitted = [(leaving_keys, leaving), (keys[~entering], staying)]
        for part_keys, part in fitted:
            if part.shape[0]:
                self._moments = self._moments + FeatureMoments.of(part)
                self._second = self._second + SecondMoments.of(part)
                self._others.add(part_keys, part)

    def profile(self, names: Sequence[str] | None = None) -> Profile:
        """The profile of all rows so far, of which at most a quarter is held out.

        Raises
        ------
        ValueError
            If there were no rows, or nothing but zeros.
        """
        if not self.rows:
            raise ValueError("rows is empty; allowed: at least one row")
        return _assembled(self._moments, self._second, self._held, self._others, names)

    def laws(self, names: Sequence[str] | None = None) -> Profile:
        """The old name of `profile`."""
        warn_renamed("ProfileFitter.laws", "ProfileFitter.profile")
        return self.profile(names)


def _assembled(
    moments: FeatureMoments,
    second: SecondMoments | None,
    held: RowSample,
    others: RowSample,
    names: Sequence[str] | None,
    broken: int = 0,
) -> Profile:
    """The profile of rows that may be held out, and of others: their moments and a sample of them."""
    order = np.argsort(held.keys, kind="stable")
    count = min(_most(_HELD_OUT, held.n_sparse), len(order))
    grouped = held.groups is not None
    if not grouped:
        count = min(count, (moments.rows + len(order)) // _SHARE)
    # Of fewer than two no standard error can be told.
    count = count if count > 1 else 0
    # Rows of groups are not fitted, even where there are too many of them to be held out.
    places = order[count:] if not grouped else order[:0]
    chosen, rest = order[:count], held.rows[places]
    if rest.shape[0]:
        moments = moments + FeatureMoments.of(rest)
        second = None if second is None else second + SecondMoments.of(rest)
    # One broken row would be all that is lost of those held out.
    energies = row_energies(held.rows[chosen], moments.mean)
    wrong = outlying(energies) if moments.rows else np.zeros(count, dtype=bool)
    chosen, broken = chosen[~wrong], broken + int(wrong.sum())
    held_out, count = held.rows[chosen], len(chosen)
    # Those of the least keys, whatever the blocks that they came in.
    keys = np.concatenate([held.keys[places], others.keys])
    least = np.argsort(keys, kind="stable")[: _most(_COMPONENTS_FROM, held.n_sparse)]
    fitted = scipy.sparse.vstack([rest, others.rows], format="csr")[least]
    groups = held.groups[chosen] if held.groups is not None and count else None
    least_of_all = min(moments.least, float(held_out.data.min(initial=0.0)))
    source = fitted_source(moments, held_out if count else None, groups, least_of_all)
    return Profile(
        source,
        moments.rows,
        held_out if count else None,
        component_losses(fitted, held_out, source.mean) if count else np.empty(0),
        int(np.sum(moments.counts == 0)),
        None if names is None else tuple(names),
        fitted if fitted.shape[0] else None,
        (moments + FeatureMoments.of(held_out) if count else moments).energy(source.mean),
        Kept(moments, second, held.keys[chosen], keys[least]),
        groups,
        broken,
    )


def _most(rows: int, n_sparse: int) -> int:
    return min(rows, max(2, _MOST_ENTRIES // n_sparse))
