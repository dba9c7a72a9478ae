"""What a profile keeps of rows, and how its file holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from persianrug._support.arrays import Parts
from persianrug._support.json import pack, unpack
from persianrug.sources import FeatureMoments, SecondMoments
from persianrug.sources.second_moments import width

Keys = NDArray[np.uint64]

_SECOND = ("sums", "squares", "products")


@dataclass(frozen=True, eq=False)
class Kept(Parts):
    """What a profile keeps so that it can be merged.

    Parameters
    ----------
    moments : FeatureMoments
        Of the rows that were fitted.
    second : SecondMoments, or None
        Of the same rows: how features go together. None in files that were written before it was learnt.
    held_keys, sample_keys : array (k,) of uint64
        Of the rows that are held out, and of the sample, in their order: random numbers, the least of which say
        which rows are drawn.
    """

    moments: FeatureMoments
    second: SecondMoments | None
    held_keys: Keys
    sample_keys: Keys


def pack_rows(rows: Any) -> Any:
    """Rows, a csr_array or None, for JSON."""
    if rows is None:
        return None
    parts = {name: pack(getattr(rows, name)) for name in ("data", "indices", "indptr")}
    return {"rows": rows.shape[0], **parts}


def unpack_rows(content: Any, n_sparse: int) -> Any:
    """The rows of `pack_rows`; any exception where they are none."""
    if content is None:
        return None
    parts = tuple(unpack(content[part]) for part in ("data", "indices", "indptr"))
    rows = scipy.sparse.csr_array(parts, shape=(content["rows"], n_sparse))
    rows.check_format(full_check=True)
    if rows.dtype.kind != "f" or not np.isfinite(rows.data).all():
        raise ValueError("its rows hold what is no finite number")
    return rows


def unpack_groups(content: Any, held_out: Any) -> NDArray[np.int64] | None:
    """The groups of rows held out; any exception where they do not fit these."""
    if content is None:
        return None
    groups = np.asarray(unpack(content))
    if held_out is None or groups.shape != (held_out.shape[0],) or groups.dtype != np.int64 or groups.min() < 0:
        raise ValueError("its groups do not fit its rows")
    return groups


def pack_kept(kept: Kept | None) -> Any:
    """What merging needs, for JSON."""
    if kept is None:
        return None
    moments, second = kept.moments, kept.second
    parts = {name: pack(getattr(moments, name)) for name in ("counts", "means", "scatters")}
    # In an array, since JSON has no infinity, which is the least of no rows.
    least = pack(np.array([moments.least]))
    if second is not None:
        parts["second"] = {name: pack(getattr(second, name)) for name in _SECOND}
    return {**parts, "least": least, "held_keys": pack(kept.held_keys), "sample_keys": pack(kept.sample_keys)}


def unpack_kept(content: Any, rows: int, n_sparse: int, held_out: Any, sample: Any) -> Kept | None:
    """What `pack_kept` was given; any exception where it does not fit the rest of the profile."""
    if content is None:
        return None
    counts, means, scatters, least, *keys = (
        np.asarray(unpack(content[name]))
        for name in ("counts", "means", "scatters", "least", "held_keys", "sample_keys")
    )
    for part, kind in ((counts, np.int64), (means, np.float64), (scatters, np.float64)):
        if part.shape != (n_sparse,) or part.dtype != kind or not np.isfinite(part).all():
            raise ValueError("its moments are no numbers, one a feature")
    if counts.min() < 0 or counts.max() > rows or scatters.min() < 0:
        raise ValueError("its moments are of no rows")
    if least.shape != (1,) or least.dtype != np.float64 or np.isnan(least[0]):
        raise ValueError("its least value is no number")
    for part, drawn in zip(keys, (held_out, sample), strict=True):
        if part.shape != (0 if drawn is None else drawn.shape[0],) or part.dtype != np.uint64:
            raise ValueError("its keys do not fit its rows")
    moments = FeatureMoments(rows, counts, means, scatters, float(least[0]))
    return Kept(moments, _unpack_second(content.get("second"), rows, n_sparse), keys[0], keys[1])


def _unpack_second(content: Any, rows: int, n_sparse: int) -> SecondMoments | None:
    if content is None:
        return None
    parts = [np.asarray(unpack(content[name])) for name in _SECOND]
    for part, shape in zip(parts, ((n_sparse,), (n_sparse,), (n_sparse, width(n_sparse))), strict=True):
        if part.shape != shape or part.dtype != np.float64 or not np.isfinite(part).all():
            raise ValueError("its second moments are no numbers, some a feature")
    return SecondMoments(rows, *parts)
