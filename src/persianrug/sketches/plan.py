"""Plans: how long a code must be, of how many bits, and read by which decoder, for a loss that is known before."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.encoders import Rug
from persianrug.sketches.measured import losses as losses
from persianrug.sketches.measured import standard_error
from persianrug.sketches.profile import Profile
from persianrug.sketches.row_sample import row_energies
from persianrug.sketches.sketch import Sketch, decoders_for
from persianrug.sources import Covariance

Floats = NDArray[np.float64]

# From fast to slow. Of the elementwise decoders the posterior mean loses least by its law, whatever the features;
# the others are there by name. A slower one must be better by so much.
_AUTOMATIC = ("linear", "bayes", "oamp")
# Those of features that go together, tried where rows are held out: the linear one with each of so many factors,
# the other with as many as that has.
_OF_COVARIANCE = ("lmmse", "cvamp")
_RANKS = (8, 16, 32, 64, 128)
_BETTER = 0.95
# And a diagonal of its own, which takes a factorisation, by so much.
_BETTER_OWN = 0.98
# Losses below this part of the variance are all as good.
_RECOVERED = 1e-9
# Features go together where knowing so leaves so much of what the linear decoder does.
_TOGETHER = 0.8
# Iterations take their time: sizes are tried on so many of the rows held out.
_TRIED = {"oamp": 256, "cvamp": 256}
# And numbers of factors on so many, by decoders of each kind.
_KINDS_TRIED = {"lmmse": 256, "cvamp": 64}
# Sizes are compared with each other to within this part.
_COARSE = 0.03
# Fewer rows are no sample.
_FEW = 32
# And fewer do not tell whether losses go with the energy.
_FEW_TO_EXPLAIN = 8
# Bits that are tried, the likely first.
_BITS = (8, 6, 5, 4, 3, 2, 1, 7, 10, 12, 16)
_FLOAT_BITS = 32


@dataclass(frozen=True)
class Plan:
    """A size of code, with what it loses: by its law, and measured on rows held out.

    Attributes
    ----------
    n_sparse, n_dense : int
    bits : int, or None where entries are 32-bit floats
    decoder : str
    seed : int
        Of the rug.
    law : float
        Predicted loss per feature, were interference Gaussian: of rows with the amplitudes and energies of those
        that were fitted, or where these are few, of independent features distributed as in the profile.
    loss : float
        The loss to expect: what was measured on rows held out, where there are some, corrected for how their
        energy differs from that of all rows; and else the law.
    held_out : float, or None where no rows were held out
        Measured loss per feature on rows that were not fitted.
    stderr : float, or None
        Standard error of the loss to expect, given the energy of all rows. Where rows are held out in groups it is
        that of the groups' means, so much larger where they are few that twice as much is left in 5% of cases.
    pca : float, or None
        Measured loss on the same rows of principal components, as many as the code has numbers, unrounded.
    pca_components : int, or None
        How many these are; fewer than n_dense where there were no more rows to learn them from.
    pca_stderr : float, or None
        Standard error of how much less these lose than the code on the same rows, from the difference of the two
        row by row; of groups as `stderr`, which it is in profiles of old that lack the rows to learn them from.
        None where they do not lose less.
    rank : int, or None
        Factors of the covariance that the decoders lmmse and cvamp know.
    variance : float
        Loss per feature of the mean alone, on the same rows.
    unseen : int
        Features that were never active where they were fitted.
    """

    n_sparse: int
    n_dense: int
    bits: int | None
    decoder: str
    seed: int
    law: float
    loss: float
    held_out: float | None
    stderr: float | None
    pca: float | None
    pca_components: int | None
    rank: int | None
    variance: float
    unseen: int
    pca_stderr: float | None = None

    @property
    def ratio(self) -> float:
        """n_dense / n_sparse."""
        return self.n_dense / self.n_sparse

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one code in a file."""
        return -(-self.n_dense * (self.bits or _FLOAT_BITS) // 8)

    @property
    def pca_is_better(self) -> bool:
        """Whether principal components lose less on the rows held out by more than twice the error of that."""
        gain = self.pca_gain
        return gain is not None and self.pca_stderr is not None and gain > 2 * self.pca_stderr

    @property
    def pca_gain(self) -> float | None:
        """How much less principal components lose on the rows held out; None where they do not, or none were."""
        if self.pca is None or self.held_out is None or not self.pca < self.held_out:
            return None
        return self.held_out - self.pca

    def recipe(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        derived = ("ratio", "bytes_per_row", "pca_is_better", "pca_gain")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}


def make_plan(
    profile: Profile,
    *,
    ratio: float | None = None,
    n_dense: int | None = None,
    target_loss: float | None = None,
    bits: int | str | None = None,
    decoder: str = "auto",
    seed: int = 0,
) -> tuple[Plan, Sketch]:
    """The plan of a given size, or the smallest that meets a loss, and its sketch.

    Parameters
    ----------
    profile : Profile
    ratio, n_dense, target_loss : float, int, float
        One of the three. The loss is per feature, as `Plan.loss`.
    bits : int from 1 to 16, "auto" or None
        What entries are rounded to; of "auto", which takes a target, that of the smallest code in bytes.
    decoder : str
        Its name, or "auto" for the one of least expected loss; a slower one is taken if it is better by 5%.
    seed : int >= 0
        Of the rug.

    Raises
    ------
    ValueError
        If an argument is out of its range, not one size is given, or no code of n_sparse numbers meets the target.
    """
    size = CodeSize.checked(
        profile, ratio=ratio, n_dense=n_dense, target_loss=target_loss, bits=bits, decoder=decoder, seed=seed
    )
    return size.plan(profile)


@dataclass(frozen=True)
class CodeSize:
    """What a plan is asked for, checked: a length or a loss, bits, decoder and seed, as in `make_plan`."""

    n_dense: int | None
    target_loss: float | None
    bits: int | str | None
    decoder: str
    seed: int

    @classmethod
    def checked(
        cls,
        profile: Profile,
        *,
        ratio: float | None,
        n_dense: int | None,
        target_loss: float | None,
        bits: int | str | None,
        decoder: str,
        seed: int,
    ) -> CodeSize:
        """The size, or ValueError; nothing is tried on the rows yet, which is what takes long."""
        checks.instance("profile", profile, Profile)
        given = {"ratio": ratio, "n_dense": n_dense, "target_loss": target_loss}
        sizes = [name for name, value in given.items() if value is not None]
        if len(sizes) != 1:
            said = " and ".join(sizes) + " are given" if sizes else "no size is given"
            raise ValueError(f"{said}; allowed: one of ratio, n_dense, target_loss")
        automatic = isinstance(bits, str) and bits == "auto"
        if automatic and target_loss is None:
            raise ValueError("bits is 'auto'; allowed with ratio or n_dense: an integer from 1 to 16, or None")
        if bits is not None and not automatic:
            bits = checks.integer("bits", bits, 1, 16)  # type: ignore[arg-type]
        seed = checks.seed(seed)
        checks.one_of("decoder", decoder, ["auto", *decoders_for(profile.source)])
        if target_loss is not None:
            target_loss = checks.positive("target_loss", target_loss)
        else:
            if ratio is not None:
                n_dense = Rug.of_ratio(profile.n_sparse, ratio).n_dense
            n_dense = checks.integer("n_dense", n_dense, 1, profile.n_sparse)  # type: ignore[arg-type]
        return cls(n_dense, target_loss, bits, decoder, seed)

    def encoder(self, profile: Profile) -> Sketch | None:
        """A sketch that encodes as the planned one will, where that is known before; it reads by linear."""
        smooth = self.decoder in ("auto", *_OF_COVARIANCE) and profile.most_factors > 0
        if self.n_dense is None or (self.bits is not None and smooth):
            # How codes are rounded depends on the decoder.
            return None
        rug = Rug(profile.n_sparse, self.n_dense, self.seed)
        return Sketch(profile.source, rug, cast("int | None", self.bits), "linear")

    def plan(self, profile: Profile) -> tuple[Plan, Sketch]:
        """The plan, and its sketch; ValueError if no code of n_sparse numbers meets the target."""
        planner = _Planner(profile, self.seed, self.decoder)
        if self.n_dense is None:
            many = _BITS if self.bits == "auto" else (self.bits,)
            n_dense, bits, name = planner.smallest(cast(float, self.target_loss), many)
        else:
            n_dense, bits, name = self.n_dense, self.bits, planner.best(self.n_dense, self.bits)
        return planner.plan(n_dense, bits, name), planner.chosen(n_dense, bits, name)


class _Planner:
    """What codes of every size lose on the rows held out, or by their law where there are none."""

    def __init__(self, profile: Profile, seed: int, decoder: str) -> None:
        self.profile, self.seed = profile, seed
        self.decoders: tuple[str, ...] = (decoder,)
        if decoder == "auto":
            known = profile.held_out is not None and profile.most_factors > 0
            self.decoders = (*_AUTOMATIC, *_OF_COVARIANCE) if known else _AUTOMATIC
        self._kinds: dict[tuple[int, str], tuple[int, bool]] = {}
        self._covariances: dict[tuple[int, bool], Covariance] = {}
        self._sketches: dict[Any, Sketch] = {}
        self._losses: dict[Any, tuple[float, float | None, float | None]] = {}
        # Of each of the rows held out.
        self._by_row: dict[Any, Floats] = {}

    def sketch(self, n_dense: int, bits: Any, decoder: str) -> Sketch:
        """What is measured on the rows held out, which it knows nothing of."""
        key = (n_dense, bits, decoder)
        if key not in self._sketches:
            self._sketches[key] = self._made(n_dense, bits, decoder)
        return self._sketches[key]

    def chosen(self, n_dense: int, bits: Any, decoder: str) -> Sketch:
        """What reads codes: its covariance is that of all rows, once those held out have told its kind."""
        sketch = self.sketch(n_dense, bits, decoder)
        if sketch.covariance is None:
            return sketch
        whole = self.profile.covariance(sketch.covariance.rank, of_all=True)
        return replace(sketch, covariance=whole.flattened() if sketch.covariance.flat else whole)

    def _made(self, n_dense: int, bits: Any, decoder: str) -> Sketch:
        rug = Rug(self.profile.n_sparse, n_dense, self.seed)
        covariance = self._covariance(*self._kind(n_dense, decoder)) if decoder in _OF_COVARIANCE else None
        return Sketch(self.profile.source, rug, bits, decoder, covariance=covariance)

    def _kind(self, n_dense: int, decoder: str) -> tuple[int, bool]:
        """Number of factors, and whether the diagonal is flat: what loses least of a code of about this length.

        Too many factors explain the rows that were fitted, and no others.
        """
        n_sparse, held = self.profile.n_sparse, self.profile.held_out
        most = self.profile.most_factors
        if held is None:
            return min(max(most // 4, 1), _RANKS[-1], most), False
        about = min(n_sparse, max(1, round(2 ** (round(2 * math.log2(n_dense)) / 2))))
        key = about, decoder
        if key not in self._kinds:
            rug, linear, tried = Rug(n_sparse, about, self.seed), _OF_COVARIANCE[0], []
            if decoder == linear:
                kinds = {(min(rank, most), flat) for rank in _RANKS for flat in (True, False)}
            else:
                rank, flat = self._kind(n_dense, linear)
                kinds = {(rank, True), (rank, flat)}
            for rank, flat in sorted(kinds):
                sketch = Sketch(self.profile.source, rug, None, decoder, covariance=self._covariance(rank, flat))
                found = float(losses(sketch, held[: _KINDS_TRIED[decoder]]).mean())
                # What takes longer must be better by so much.
                tried.append((found if flat else found / _BETTER_OWN, rank, flat))
            _, rank, flat = min(tried)
            self._kinds[key] = rank, flat
        return self._kinds[key]

    def _covariance(self, rank: int, flat: bool) -> Covariance:
        key = (rank, flat)
        if key not in self._covariances:
            found = self.profile.covariance(rank)
            self._covariances[key] = found.flattened() if flat else found
        return self._covariances[key]

    def expected(self, n_dense: int, bits: Any, decoder: str) -> float:
        """The loss to expect, of a slow decoder by some of the rows held out."""
        return self.measured(n_dense, bits, decoder, _TRIED.get(decoder))[0]

    def law(self, sketch: Sketch) -> float:
        sample = self.profile.sample
        if sketch.covariance is not None:
            # It explains the rows that it was fitted to better than others, and its law on rows is exact.
            held = self.profile.held_out
            return sketch.law() if held is None else float(sketch.laws_on(held).mean())
        if sample is None or sample.shape[0] < _FEW:
            # A few rows say less than the features' distributions do.
            return sketch.law()
        sample = sample[: _TRIED.get(sketch.decoder)]
        return self.of_all(sketch.laws_on(sample), sample)[0]

    def of_all(self, found: Floats, rows: Any, groups: NDArray[np.int64] | None = None) -> tuple[float, float]:
        """Mean over all rows of losses that are known of some, and its standard error.

        Losses go with the energy of a row, of which the mean over all rows is known: their regression on it, as a
        control variate. Where that would say something else altogether, or of one half of the rows says nothing of
        the other, the energy does not explain them; and where rows follow each other, those to come have another.
        """
        if self.profile.energy is not None and groups is None:
            energies = row_energies(rows, self.profile.source.mean)
            gaps = energies - energies.mean()
            slope = _slope(gaps, found)
            shift = slope * (self.profile.energy - float(energies.mean()))
            if abs(shift) < 0.25 * found.mean() and _explains(gaps, found):
                return float(found.mean()) + shift, standard_error(found - slope * gaps, groups)
        return float(found.mean()), standard_error(found, groups)

    def best(self, n_dense: int, bits: Any) -> str:
        """The decoder of the least expected loss, but for a slower one that is hardly better."""
        chosen, recovered = self.decoders[0], _RECOVERED * float(np.mean(self.profile.source.variance))
        for name in self._of_use(n_dense, bits)[1:]:
            least = max(self.expected(n_dense, bits, name), recovered)
            if least < _BETTER * self.expected(n_dense, bits, chosen):
                chosen = name
        return chosen

    def _of_use(self, n_dense: int, bits: Any) -> tuple[str, ...]:
        """The decoders to try: the slow one of features that go together where the fast one says that they do."""
        fast, slow = _OF_COVARIANCE
        if len(self.decoders) == 1 or slow not in self.decoders:
            return self.decoders
        linear, known = (self.expected(n_dense, bits, name) for name in (_AUTOMATIC[0], fast))
        return self.decoders if known < _TOGETHER * linear else tuple(n for n in self.decoders if n != slow)

    def smallest(self, target: float, many_bits: Iterable[Any]) -> tuple[int, Any, str]:
        """Length, bits and decoder of the smallest code in bytes that meets the target.

        A slower decoder is taken if it saves as much as it must be better, and the slowest is tried but with bits
        next to those that are best for the others.
        """
        many, slow = list(many_bits), _OF_COVARIANCE[-1]
        fast = [(bits, name) for bits in many for name in self.decoders if name != slow]
        found = self._smaller(target, fast, None)
        if slow in self.decoders:
            near = many if found is None else [bits for bits in many if abs((bits or 0) - (found[1] or 0)) <= 1]
            found = self._smaller(target, [(bits, slow) for bits in near], found)
        if found is None:
            least = min(
                self.expected(self.profile.n_sparse, bits, name) for bits in many for name in self.decoders
            )
            raise ValueError(
                f"target_loss is {target:g}; allowed with these bits: at least {least:.3g}, "
                "which as many numbers as features lose"
            )
        n_dense, bits, name = found
        n_dense = self._search(target, bits, name, n_dense, 0.0)
        # What was searched for on a part of the rows is to hold on all.
        while n_dense < self.profile.n_sparse and self.measured(n_dense, bits, name)[0] > target:
            n_dense += 1 + n_dense // 200
        return min(n_dense, self.profile.n_sparse), bits, name

    def _smaller(
        self, target: float, tries: Iterable[tuple[Any, str]], found: tuple[int, Any, str] | None
    ) -> tuple[int, Any, str] | None:
        """The smallest code of some bits and decoders, from fast to slow, that is smaller than what was found."""
        for bits, name in tries:
            width, most = bits or _FLOAT_BITS, self.profile.n_sparse
            if found is not None:
                least = found[0] * (found[1] or _FLOAT_BITS)
                slower = self.decoders.index(name) > self.decoders.index(found[2])
                most = min(most, math.floor((_BETTER * least if slower else least - 1) / width))
            if most < 1 or name not in self._of_use(most, bits):
                continue
            if self.expected(most, bits, name) <= target:
                found = self._search(target, bits, name, most, _COARSE), bits, name
        return found

    def _search(self, target: float, bits: Any, decoder: str, high: int, within: float) -> int:
        """The least n_dense that meets the target, which `high` does, or one larger by less than a part."""
        low = 0
        ends: dict[int, float] = {high: self.expected(high, bits, decoder)}
        secant = True
        while high - low > max(1, within * high):
            # In logarithms the loss is smooth but for a threshold, which halving finds.
            middle = math.isqrt(max(low, 1) * high)
            if secant and low in ends and min(ends[low], ends[high]) > 0:
                slope = math.log(ends[high] / ends[low]) / math.log(high / low)
                if slope < 0:
                    middle = math.floor(low * math.exp(math.log(target / ends[low]) / slope))
            middle = min(max(middle, low + 1), high - 1)
            ends[middle] = self.expected(middle, bits, decoder)
            low, high = (low, middle) if ends[middle] <= target else (middle, high)
            secant = not secant
        return high

    def measured(
        self, n_dense: int, bits: Any, decoder: str, most: int | None = None
    ) -> tuple[float, float | None, float | None]:
        """The loss to expect, its standard error and the loss of rows held out; or the law, None and None."""
        sketch, held = self.sketch(n_dense, bits, decoder), self.profile.held_out
        # As they are all, they are measured once.
        most = None if held is None or most is None or held.shape[0] <= most else most
        key = (n_dense, bits, decoder, most)
        if key not in self._losses:
            if held is None:
                self._losses[key] = self.law(sketch), None, None
            else:
                found = losses(sketch, held[:most])
                groups = None if self.profile.groups is None else self.profile.groups[:most]
                self._losses[key] = *self.of_all(found, held[:most], groups), float(found.mean())
                if most is None:
                    self._by_row[n_dense, bits, decoder] = found
        return self._losses[key]

    def plan(self, n_dense: int, bits: Any, decoder: str) -> Plan:
        sketch = self.sketch(n_dense, bits, decoder)
        loss, stderr, measured = self.measured(n_dense, bits, decoder)
        variance = float(np.mean(self.profile.source.variance) if measured is None else self.profile.pca[0])
        pca, components = self.profile.pca_loss(n_dense) or (None, None)
        # Where they do not lose less, no error is asked for, which takes their eigenvectors anew.
        less = pca is not None and measured is not None and pca < measured
        by_components = self.profile.pca_losses(n_dense) if less else None
        pca_stderr = stderr if less else None
        if by_components is not None:
            gains = self._by_row[n_dense, bits, decoder] - by_components
            pca_stderr = standard_error(gains, self.profile.groups)
        return Plan(
            n_sparse=self.profile.n_sparse,
            n_dense=n_dense,
            bits=bits,
            decoder=decoder,
            seed=self.seed,
            law=loss if measured is None else self.law(sketch),
            loss=loss,
            held_out=measured,
            stderr=stderr,
            pca=pca,
            pca_components=components,
            pca_stderr=pca_stderr,
            rank=None if sketch.covariance is None else sketch.covariance.rank,
            variance=variance,
            unseen=self.profile.unseen,
        )


def _slope(gaps: Floats, found: Floats) -> float:
    return float(gaps @ (found - found.mean())) / max(float(gaps @ gaps), 1e-300)


def _explains(gaps: Floats, found: Floats) -> bool:
    """Whether the regression on every other row leaves less of the others than their mean does."""
    if len(found) < _FEW_TO_EXPLAIN:
        return False
    left = plain = 0.0
    for one, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        slope = _slope(gaps[one] - gaps[one].mean(), found[one])
        own = gaps[other] - gaps[other].mean()
        left += float((found[other] - slope * own).var())
        plain += float(found[other].var())
    return left < plain
