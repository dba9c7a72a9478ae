"""The sketch as a scikit-learn estimator: fit, plan, transform, inverse_transform."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import as_tensor, bounded, listed, plain
from persianrug._support.renamed import warn_renamed
from persianrug._support.sparse import by_rows
from persianrug.sketches.codes import Codes
from persianrug.sketches.hold_out import HoldOut
from persianrug.sketches.plan import CodeSize, Plan
from persianrug.sketches.profile import Profile, ProfileFitter
from persianrug.sketches.sketch import BLOCK, Sketch

_RATIO = 0.25


class Sketcher(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Linear sketches of sparse rows: codes of n_dense numbers that add up, their loss known before.

    A scikit-learn transformer. `fit` learns how every feature is distributed in one pass and holds out some rows;
    the size of the codes is given by one of n_dense, ratio and target_loss, here or by `plan` after fitting.

    Parameters
    ----------
    ratio : float in (0, 1], optional
        n_dense / n_sparse; where nothing is given n_dense is a quarter of n_sparse.
    n_dense : int, optional
        Length of the code.
    target_loss : float > 0, optional
        The smallest code whose expected loss, mean squared error per feature, meets it.
    bits : int from 1 to 16, "auto" or None
        What entries of the code are rounded to; "auto" takes a target_loss.
    decoder : str
        "auto", or a name: linear, relu, jumprelu, gated, prolu, bayes, oamp, lmmse, or soft.
    hold_out : str
        Which rows `fit` holds out: "random" ones, "blocks" of rows, or "auto", which is blocks where rows follow
        each other. Rows of `partial_fit`, whose number is not known before, are held out at random.
    seed : int >= 0
        Of the rug, and of which rows are held out.

    Attributes
    ----------
    profile_ : Profile
        What was learned.
    plan_ : Plan
        Size, decoder, and loss predicted and measured on rows held out.
    sketch_ : Sketch
        What encodes and decodes.
    n_features_in_ : int
    feature_names_in_ : array of str, where columns have names

    Examples
    --------
    >>> import numpy as np, persianrug as pr
    >>> X = np.random.default_rng(0).random((400, 256)) * (np.random.default_rng(1).random((400, 256)) < 0.03)
    >>> sketcher = pr.Sketcher(ratio=0.25).fit(X)
    >>> codes = sketcher.encode(X)
    >>> codes
    Codes(400 rows of Rug(n_sparse=256, n_dense=64, seed=0))
    >>> both = sketcher.decode(codes[:200] + codes[200:])  # the codes of sums
    >>> both.shape
    (200, 256)
    """

    # What a plan is asked for, and the plan and its sketch, once they were needed.
    _size: CodeSize
    _planned: tuple[Plan, Sketch] | None

    def __init__(
        self,
        ratio: float | None = None,
        *,
        n_dense: int | None = None,
        target_loss: float | None = None,
        bits: int | str | None = None,
        decoder: str = "auto",
        hold_out: str = "auto",
        seed: int = 0,
    ) -> None:
        self.ratio = ratio
        self.n_dense = n_dense
        self.target_loss = target_loss
        self.bits = bits
        self.decoder = decoder
        self.hold_out = hold_out
        self.seed = seed

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ARG002
        """Learn the profile of rows X; the code is planned when first its plan or its decoder is needed.

        Parameters
        ----------
        X : array or SciPy sparse matrix (rows, n_sparse)
        y : ignored

        Raises
        ------
        ValueError
            If X is not finite, has fewer than two features or nothing but zeros, or a parameter is out of range.
        """
        self._fitter: ProfileFitter | None = None
        return self._learn(X, reset=True, whole=True)

    def partial_fit(self, X: Any, y: object = None) -> Self:  # noqa: ARG002
        """Learn from more rows; arguments and errors as in `fit`.

        The profile is that of all rows so far.
        """
        begun = getattr(self, "_fitter", None) is not None
        if not begun and hasattr(self, "profile_"):
            raise ValueError("the profile was given; allowed after from_profile: fit, which starts anew")
        return self._learn(X, reset=not begun)

    def _learn(self, X: Any, *, reset: bool, whole: bool = False) -> Self:
        X = self._validated(X, reset=reset)
        # Before anything is learned of any block.
        bounded("X", as_tensor("X", X.data if hasattr(X, "tocsr") else X), checks.LARGEST)
        if reset:
            self._fitter = ProfileFitter(X.shape[1], self.seed)
        fitter: Any = self._fitter
        held = HoldOut(self.hold_out, X.shape[0]) if whole else HoldOut("random")
        step = max(1, BLOCK // X.shape[1])
        for start in range(0, X.shape[0], step):
            block = X[start : start + step]
            fitter.add(block, held.groups(start, block))
        names = getattr(self, "feature_names_in_", None)
        if reset:
            self._held_by = held.kind
        found = fitter.profile(None if names is None else list(names))
        self.profile_ = replace(found, held_by=self._held_by)
        self._plan_by_parameters()
        return self

    def _validated(self, X: Any, *, reset: bool) -> Any:
        """Rows as float32 or float64, of the features that were fitted unless they `reset` them, or ValueError."""
        rows, least = _widened(X), 2 if reset else 1
        try:
            return validate_data(
                self, rows, accept_sparse="csr", dtype=[np.float64, np.float32], reset=reset,
                ensure_min_features=least, ensure_all_finite=False,
            )  # fmt: skip
        except (ValueError, TypeError, OverflowError) as error:
            said = checks.shortened(str(error)).rstrip(".")
            width = "features, 2 or more" if reset else f"{self.n_features_in_} features, as were fitted"
            kind = _NoNumber if isinstance(error, TypeError) else ValueError
            raise kind(f"X is refused: {said}; allowed: real numbers, rows of {width}") from None

    @classmethod
    def from_profile(cls, profile: Profile | str | os.PathLike[str], **parameters: Any) -> Self:
        """A fitted sketcher of a profile that was learned before, or of a file of one.

        Raises
        ------
        ValueError
            If the file cannot be read, or a parameter is out of its range.
        """
        sketcher = cls(**parameters)
        sketcher.profile_ = profile if isinstance(profile, Profile) else Profile.load(profile)
        sketcher.n_features_in_ = sketcher.profile_.n_sparse
        if sketcher.profile_.names is not None:
            sketcher.feature_names_in_ = np.array(sketcher.profile_.names, dtype=object)
        sketcher._plan_by_parameters()
        return sketcher

    @classmethod
    def from_laws(cls, laws: Profile | str | os.PathLike[str], **parameters: Any) -> Self:
        """The old name of `from_profile`."""
        warn_renamed("Sketcher.from_laws", "Sketcher.from_profile")
        return cls.from_profile(laws, **parameters)

    @property
    def laws_(self) -> Profile:
        """The old name of `profile_`."""
        warn_renamed("Sketcher.laws_", "Sketcher.profile_")
        return self.profile_

    def _plan_by_parameters(self) -> None:
        sizes = {"ratio": self.ratio, "n_dense": self.n_dense, "target_loss": self.target_loss}
        if all(value is None for value in sizes.values()):
            # However few features there are.
            sizes["n_dense"] = max(1, round(_RATIO * self.profile_.n_sparse))
        self._ask(bits=self.bits, decoder=self.decoder, **sizes)

    def plan(
        self,
        *,
        ratio: float | None = None,
        n_dense: int | None = None,
        target_loss: float | None = None,
        bits: int | str | None = None,
        decoder: str | None = None,
    ) -> Plan:
        """Plan a code of one of the sizes, which is the one in use from then on.

        Parameters
        ----------
        ratio, n_dense, target_loss : float, int, float
            One of the three.
        bits : int from 1 to 16, "auto" or None
        decoder : str, optional
            By default the parameter.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or no code meets the target.
        """
        check_is_fitted(self, "profile_")
        before = self._size, self._planned
        self._ask(
            ratio=ratio, n_dense=n_dense, target_loss=target_loss, bits=bits,
            decoder=self.decoder if decoder is None else decoder,
        )  # fmt: skip
        try:
            return self.plan_
        except ValueError:
            # What cannot be planned leaves the code as it was.
            self._size, self._planned = before
            raise

    def _ask(self, **size: Any) -> None:
        """Take up what a plan is asked for, once it is checked."""
        self._size = CodeSize.checked(self.profile_, **size, seed=self.seed)
        self._planned = None

    def _plan_now(self) -> tuple[Plan, Sketch]:
        check_is_fitted(self, "profile_")
        if self._planned is None:
            self._planned = self._size.plan(self.profile_)
        return self._planned

    @property
    def plan_(self) -> Plan:
        """Size, decoder, and loss predicted and measured on rows held out; planned when first asked for."""
        return self._plan_now()[0]

    @property
    def sketch_(self) -> Sketch:
        """What encodes and decodes."""
        return self._plan_now()[1]

    @property
    def _encoder(self) -> Sketch:
        """What encodes as `sketch_` does; codes of a length that is given need no plan."""
        check_is_fitted(self, "profile_")
        encoder = None if self._planned is not None else self._size.encoder(self.profile_)
        return self.sketch_ if encoder is None else encoder

    def encode(self, X: Any) -> Codes:
        """Codes of rows X; see `Sketch.encode`.

        Raises
        ------
        ValueError
            If X has other features, is not finite, or is negative where what was fitted was not.
        """
        encoder = self._encoder
        return encoder.encode(self._validated(X, reset=False))

    def decode(self, codes: Codes) -> Float[NDArray[Any], "rows n_sparse"]:
        """Estimates of what was encoded, or of its sums; see `Sketch.decode`."""
        return np.asarray(self.sketch_.decode(codes))

    def transform(self, X: Any) -> Float[NDArray[Any], "rows n_dense"]:
        """Codes of rows X as a plain array; errors as in `encode`."""
        return np.asarray(self.encode(X))

    def inverse_transform(self, X: Any) -> Float[NDArray[Any], "rows n_sparse"]:
        """Estimates of rows from codes X (rows, n_dense) as `transform` gives them; NaN entries are missing.

        Raises
        ------
        ValueError
            If X has another shape, or holds what are no real numbers.
        """
        sketch = self.sketch_
        values = _dense(X)
        checks.rows("X", values, sketch.rug.n_dense)
        if hasattr(values, "tocsr"):
            raise ValueError("X is a sparse matrix; allowed: an array of codes")
        values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
        return self.decode(sketch.codes(values))

    def loss(self) -> float:
        """Predicted loss per feature, as `Plan.loss`: the law corrected by rows held out."""
        return float(self.plan_.loss)

    def losses(self) -> NDArray[np.float64]:
        """Predicted loss of every feature, (n_sparse,), by the law, were features independent."""
        return self.sketch_.losses()

    @property
    def _n_features_out(self) -> int:
        return self._encoder.rug.n_dense

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class _NoNumber(ValueError, TypeError):
    """A ValueError as everywhere here, of objects that are no numbers, which for scikit-learn is a TypeError."""


def _dense(X: Any) -> Any:
    """Rows as an array, in numbers that NumPy has; sparse matrices, and what is no matrix at all, as they are."""
    if isinstance(X, Tensor):
        checks.real("X", X)
        return plain(X)
    return X if hasattr(X, "tocsr") else listed("X", X)


def _widened(X: Any) -> Any:
    """Rows as scikit-learn takes them, which would drop masks, and read texts and dates as numbers."""
    # Data frames have names of features, which are not to be lost.
    rows = X if hasattr(X, "columns") else _dense(X)
    if rows.ndim != 2:
        raise ValueError(f"X has shape {rows.shape}; allowed: (rows, features). Reshape your data to two axes")
    if not rows.shape[0]:
        raise ValueError(f"X has shape {rows.shape}; allowed: at least one row")
    kind = getattr(getattr(rows, "dtype", None), "kind", "O")
    if kind == "c":
        raise ValueError(f"Complex data not supported: X has dtype {rows.dtype}; allowed: real numbers")
    # Of objects scikit-learn says itself which is no number.
    if kind != "O":
        checks.real("X", rows)
    if isinstance(rows, np.matrix):
        return np.asarray(rows)
    # What it brings into rows, it adds up before it widens.
    return by_rows(rows) if hasattr(rows, "tocsr") else rows
