"""Whether data have the features that others have."""

from __future__ import annotations

from collections.abc import Sequence


def check_features(
    known: Sequence[str] | None, n_known: int, names: Sequence[str] | None, n_sparse: int, where: str, which: str
) -> None:
    """ValueError unless data elsewhere have as many features, of the same names in the same order.

    Parameters
    ----------
    known, names : sequence of str, or None
        Names that are not there are taken to be the same.
    where : str
        What the data are, for messages.
    which : str
        What was done to the known features: "were fitted".
    """
    if names is not None and known is not None and tuple(names) != tuple(known):
        unseen = sorted(set(names) - set(known))
        if unseen:
            some = "a feature" if len(unseen) == 1 else f"{len(unseen)} features"
            raise ValueError(
                f"{where} has {some} other than those that {which}, the first is {unseen[0]!r}; "
                f"allowed: the features that {which}"
            )
        if n_sparse == n_known:
            raise ValueError(f"{where} has its features in another order; allowed: that in which they {which}")
    if n_sparse != n_known:
        raise ValueError(f"{where} has {n_sparse} features; allowed: {n_known}, as {which}")
