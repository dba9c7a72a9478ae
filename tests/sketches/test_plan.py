"""Plans: sizes, bits and decoders for a loss that is known before, on data held out and by the law."""

import json
import re
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.sketches.plan import _Planner, losses
from persianrug.sketches.row_sample import row_energies

N = 128
SOURCE = pr.SparseTruncatedNormal(0.04, 0.3, 1.0)


def profile_of(x, seed=0):
    fitter = pr.ProfileFitter(x.shape[1], seed)
    fitter.add(x)
    return fitter.profile()


def rows_of(rows, source=SOURCE, n_sparse=N, seed=0):
    return source.sample(rows, n_sparse, seed=seed, dtype=torch.float64).numpy()


@pytest.fixture(scope="module")
def profile():
    """Of independent features; 400 rows are held out."""
    return profile_of(rows_of(1600))


@pytest.fixture(scope="module")
def many():
    """As many rows held out as there can be."""
    return profile_of(rows_of(4200))


class TestOfASize:
    def test_by_ratio_and_by_length(self, profile):
        plan, sketch = pr.make_plan(profile, ratio=0.25, decoder="bayes", seed=3)
        assert (plan.n_sparse, plan.n_dense, plan.ratio, plan.bits, plan.seed) == (N, 32, 0.25, None, 3)
        assert plan.decoder == sketch.decoder == "bayes"
        assert sketch.rug == pr.Rug(N, 32, 3)
        assert sketch.source is profile.source
        other, _ = pr.make_plan(profile, n_dense=32, decoder="bayes", seed=3)
        assert other == plan
        assert plan.bytes_per_row == 128
        for n_dense in (1, N):
            assert pr.make_plan(profile, n_dense=n_dense, decoder="linear")[0].n_dense == n_dense
        assert pr.make_plan(profile, ratio=1.0, decoder="linear")[0].loss < 1e-20

    @pytest.mark.parametrize(("bits", "expected"), [(1, 4), (3, 12), (5, 20), (8, 32), (16, 64), (None, 128)])
    def test_bytes(self, profile, bits, expected):
        plan, sketch = pr.make_plan(profile, n_dense=32, bits=bits, decoder="linear")
        assert (plan.bytes_per_row, plan.bits, sketch.bits) == (expected, bits, bits)
        odd, _ = pr.make_plan(profile, n_dense=13, bits=bits, decoder="linear")
        assert odd.bytes_per_row == -(-13 * (bits or 32) // 8)

    @pytest.mark.parametrize("decoder", ["linear", "relu", "bayes"])
    @pytest.mark.parametrize("bits", [None, 4])
    def test_the_law_is_what_is_measured_where_features_are_independent(self, many, decoder, bits):
        plan, sketch = pr.make_plan(many, ratio=0.4, decoder=decoder, bits=bits)
        assert plan.held_out == pytest.approx(plan.law, abs=0.04 * plan.law + 3 * plan.stderr)
        found = losses(sketch, many.held_out)
        assert len(found) == 1024
        assert plan.held_out == pytest.approx(found.mean(), rel=1e-12)
        # The energy of all rows is known, and explains a part of what rows differ by.
        assert 0 < plan.stderr < 0.8 * found.std(ddof=1) / 32
        assert plan.loss == pytest.approx(plan.held_out, abs=4 * found.std() / 32)
        # And on rows that were never seen, which have an energy of their own.
        fresh = losses(sketch, rows_of(1000, seed=9))
        stderr = np.hypot(plan.stderr, fresh.std() / 1000**0.5)
        assert fresh.mean() == pytest.approx(plan.loss, abs=0.02 * plan.loss + 4 * stderr)

    def test_energy_corrects_what_rows_held_out_happen_to_have(self, many):
        # Rows of little energy are held out: their loss is low, and that of all rows is found all the same.
        planner = _Planner(many, 0, "relu")
        sketch = planner.sketch(51, None, "relu")
        energies = row_energies(many.held_out, many.source.mean)
        few = many.held_out[np.argsort(energies)[:-60]]
        plain = losses(sketch, few).mean()
        whole, _ = planner.of_all(losses(sketch, many.held_out), many.held_out)
        found, _ = planner.of_all(losses(sketch, few), few)
        assert plain < 0.95 * whole
        assert abs(found - whole) < 0.4 * abs(plain - whole)

    def test_the_losses_are_those_of_rows(self, profile):
        _, sketch = pr.make_plan(profile, ratio=0.25, decoder="bayes", bits=6)
        held = profile.held_out.toarray()
        expected = np.square(sketch.decode(sketch.encode(held)) - held).mean(axis=1)
        assert losses(sketch, profile.held_out) == pytest.approx(expected, rel=1e-12)
        assert losses(sketch, held) == pytest.approx(expected, rel=1e-12)

    def test_variance_is_the_loss_of_the_mean(self, profile):
        plan, _ = pr.make_plan(profile, ratio=0.25, decoder="linear")
        held = profile.held_out.toarray()
        assert plan.variance == pytest.approx(np.square(held - profile.source.mean).mean(), rel=1e-9)
        assert plan.loss < plan.variance


class TestTheDecoder:
    def test_above_the_threshold_it_is_oamp(self, profile):
        plan, _ = pr.make_plan(profile, ratio=0.4)
        assert plan.decoder == "oamp"
        assert plan.loss < 1e-6

    def test_far_below_it_is_an_elementwise_one(self, profile):
        for n_dense in (2, 6):
            plan, _ = pr.make_plan(profile, n_dense=n_dense)
            assert plan.decoder in ("linear", "bayes")

    def test_a_slower_one_is_taken_for_5_percent(self, profile):
        for n_dense in (2, 8, 16, 32, 100):
            plan, _ = pr.make_plan(profile, n_dense=n_dense)
            measured = {name: pr.make_plan(profile, n_dense=n_dense, decoder=name)[0].loss for name in
                        ("linear", "bayes", "oamp")}  # fmt: skip
            assert 0.93 * plan.loss <= min(measured.values())

    def test_of_signed_features(self):
        x = rows_of(400, pr.SparseGaussian(0.05))
        profile = profile_of(x)
        plan, sketch = pr.make_plan(profile, ratio=0.4)
        assert isinstance(sketch.source, pr.SparseGaussian)
        assert plan.decoder == "oamp"
        with pytest.raises(ValueError, match=r"decoder is 'relu'; allowed: auto, linear, .*bayes"):
            pr.make_plan(profile, ratio=0.4, decoder="relu")


class TestOfALoss:
    @pytest.mark.parametrize("decoder", ["linear", "bayes", "oamp", "auto"])
    @pytest.mark.parametrize("bits", [None, 5])
    @pytest.mark.parametrize("target", [2e-2, 5e-3])
    def test_it_is_met_and_not_by_less(self, profile, decoder, bits, target):
        plan, sketch = pr.make_plan(profile, target_loss=target, decoder=decoder, bits=bits)
        assert plan.loss <= target
        assert sketch.rug.n_dense == plan.n_dense
        assert decoder in ("auto", plan.decoder)
        planner = _Planner(profile, 0, decoder)
        for name in planner.decoders:
            assert plan.n_dense == 1 or planner.expected(plan.n_dense - 1, bits, name) > target

    @pytest.mark.parametrize("target", [0.03, 0.02, 0.01, 0.005, 0.002, 0.001])
    def test_it_is_met_on_all_rows_that_are_held_out(self, many, target):
        for bits in (None, 3):
            plan, _ = pr.make_plan(many, target_loss=target, decoder="oamp", bits=bits)
            assert plan.loss <= target

    def test_a_loss_that_nothing_meets_already(self, profile):
        assert pr.make_plan(profile, target_loss=10.0)[0].n_dense == 1
        assert pr.make_plan(profile, target_loss=1e-20, decoder="linear")[0].n_dense == N

    @pytest.mark.parametrize("target", [2e-2, pytest.param(2e-3, marks=pytest.mark.slow)])
    def test_bits_of_the_smallest_code(self, profile, target):
        auto, sketch = pr.make_plan(profile, target_loss=target, bits="auto")
        floats, _ = pr.make_plan(profile, target_loss=target)
        assert auto.loss <= target
        assert sketch.bits == auto.bits
        assert auto.bytes_per_row < floats.bytes_per_row
        # In bits it is no larger than any other; bytes are whole.
        for bits in (2, 4, 8):
            try:
                plan, _ = pr.make_plan(profile, target_loss=target, bits=bits)
            except ValueError:
                continue
            assert auto.n_dense * auto.bits <= 1.15 * plan.n_dense * plan.bits

    @pytest.mark.parametrize("bits", [1, 2])
    def test_what_cannot_be_reached_is_refused_with_what_can(self, profile, bits):
        with pytest.raises(
            ValueError, match=r"target_loss is 1e-09; allowed with these bits: at least "
        ) as caught:
            pr.make_plan(profile, target_loss=1e-9, bits=bits)
        least = float(re.search(r"at least ([\d.e-]+),", str(caught.value))[1])
        planner = _Planner(profile, 0, "auto")
        expected = min(planner.expected(N, bits, name) for name in planner.decoders)
        assert least == pytest.approx(expected, rel=0.01)
        assert pr.make_plan(profile, target_loss=1.02 * least, bits=bits)[0].loss <= 1.02 * least

    def test_the_law_is_that_on_rows_that_were_fitted(self, profile):
        for decoder, most in (("linear", None), ("bayes", None), ("oamp", 256)):
            plan, sketch = pr.make_plan(profile, ratio=0.1, decoder=decoder, bits=3)
            # But for what their energy differs from that of all rows by.
            assert plan.law == pytest.approx(sketch.law_on(profile.sample[:most]), rel=0.1)
        # Of a few that of the source.
        few = profile_of(rows_of(20))
        plan, sketch = pr.make_plan(few, ratio=0.3, decoder="bayes")
        assert plan.law == sketch.law()

    def test_without_rows_held_out_the_law_is_the_loss(self):
        profile = profile_of(rows_of(3))
        assert profile.held_out is None
        plan, sketch = pr.make_plan(profile, ratio=0.5)
        assert (plan.held_out, plan.stderr, plan.pca, plan.pca_components) == (None, None, None, None)
        assert plan.loss == plan.law == sketch.law()
        assert plan.variance == pytest.approx(np.mean(profile.source.variance))
        assert not plan.pca_is_better
        met, _ = pr.make_plan(profile, target_loss=0.02, decoder="bayes")
        assert met.law <= 0.02
        assert pr.make_plan(profile, n_dense=met.n_dense - 1, decoder="bayes")[0].law > 0.02
        json.dumps(plan.recipe())


class TestComponents:
    def test_they_are_better_where_features_are_not_sparse_but_alike(self):
        rng = np.random.default_rng(0)
        x = np.abs(rng.normal(size=(400, 3)) @ rng.normal(size=(3, 64)))
        plan, _ = pr.make_plan(profile_of(x), ratio=0.25)
        assert plan.pca < plan.loss
        assert plan.pca_is_better
        assert plan.pca_components == 16

    def test_and_worse_where_they_are_sparse_and_independent(self, profile):
        for ratio in (0.25, 0.5):
            plan, _ = pr.make_plan(profile, ratio=ratio)
            assert plan.loss < plan.pca
            assert not plan.pca_is_better
            assert (plan.pca_gain, plan.pca_stderr) == (None, None)
        assert plan.pca == profile.pca_loss(64)[0]

    def test_their_error_is_that_of_the_difference(self):
        """Rows of much energy lose much by both."""
        rng = np.random.default_rng(0)
        x = rng.standard_t(3, size=(400, 1)) * (rng.normal(size=(400, 32)) @ rng.normal(size=(32, 64)))
        profile = profile_of(x)
        plan, sketch = pr.make_plan(profile, ratio=0.25, decoder="linear")
        by_components = profile.pca_losses(plan.n_dense)
        assert by_components.mean() == pytest.approx(plan.pca, rel=1e-9)
        lost = losses(sketch, profile.held_out)
        gains = lost - by_components
        assert plan.pca_gain == pytest.approx(gains.mean())
        assert plan.pca_stderr == pytest.approx(gains.std(ddof=1) / len(gains) ** 0.5)
        assert plan.pca_stderr < 0.7 * lost.std(ddof=1) / len(gains) ** 0.5

    def test_less_is_better_beyond_twice_its_error(self):
        x = np.abs(np.random.default_rng(0).normal(size=(400, 3)) @ np.random.default_rng(1).normal(size=(3, 64)))
        plan, _ = pr.make_plan(profile_of(x), ratio=0.25)
        for factor, better in ((0.49, True), (0.51, False)):
            assert replace(plan, pca_stderr=factor * plan.pca_gain).pca_is_better == better
        assert not replace(plan, pca=plan.held_out).pca_is_better

    def test_of_a_profile_without_the_rows_to_learn_from(self):
        """Of which files of before have none: the error of one loss is all there is."""
        x = np.abs(np.random.default_rng(0).normal(size=(400, 3)) @ np.random.default_rng(1).normal(size=(3, 64)))
        plan, _ = pr.make_plan(replace(profile_of(x), sample=None), ratio=0.25)
        assert plan.pca_gain > 0
        assert plan.pca_stderr == plan.stderr

    def test_there_are_no_more_than_rows(self):
        profile = profile_of(rows_of(12))
        plan, _ = pr.make_plan(profile, n_dense=60, decoder="linear")
        assert plan.pca_components <= profile.rows == 9


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "no size is given; allowed: one of ratio, n_dense, target_loss"),
            ({"ratio": 0.5, "n_dense": 3}, "ratio and n_dense are given; allowed: one of"),
            ({"ratio": 0.5, "target_loss": 3}, "ratio and target_loss are given"),
            ({"ratio": 0.5, "n_dense": 3, "target_loss": 1}, "ratio and n_dense and target_loss are given"),
            ({"ratio": 0.5, "bits": "auto"}, "bits is 'auto'; allowed with ratio or n_dense: an integer"),
            ({"n_dense": 5, "bits": "auto"}, "bits is 'auto'"),
            ({"ratio": 0.5, "bits": 17}, "bits is 17"),
            ({"ratio": 0.5, "bits": 0}, "bits is 0"),
            ({"ratio": 0.5, "bits": "many"}, "bits is 'many'"),
            ({"target_loss": 0.1, "bits": "many"}, "bits is 'many'"),
            ({"ratio": 0.0}, "ratio is 0"),
            ({"ratio": 1.1}, "ratio is 1.1"),
            ({"ratio": 1e-9}, "ratio is 1e-09"),
            ({"ratio": "a"}, "ratio is 'a'"),
            ({"n_dense": 0}, "n_dense is 0"),
            ({"n_dense": N + 1}, "n_dense is 129"),
            ({"n_dense": 2.5}, "n_dense is 2.5"),
            ({"target_loss": 0}, "target_loss is 0"),
            ({"target_loss": -1.0}, "target_loss is -1"),
            ({"target_loss": float("nan")}, "target_loss is nan"),
            ({"ratio": 0.5, "decoder": "wavelet"}, "decoder is 'wavelet'; allowed: auto, linear, relu, "),
            ({"ratio": 0.5, "decoder": "topk"}, "decoder is 'topk'; allowed: auto, linear, relu, "),
            ({"ratio": 0.5, "seed": -1}, "seed is -1"),
        ],
    )
    def test_arguments(self, profile, arguments, message):
        with pytest.raises(ValueError, match=message):
            pr.make_plan(profile, **arguments)


def test_as_json(profile):
    plan, _ = pr.make_plan(profile, target_loss=0.01, bits=8)
    recipe = json.loads(json.dumps(plan.recipe()))
    for name in ("n_sparse", "n_dense", "bits", "decoder", "seed", "law", "held_out", "stderr", "pca",
                 "pca_components", "variance", "unseen", "loss", "ratio", "bytes_per_row",
                 "pca_is_better", "pca_gain", "pca_stderr"):  # fmt: skip
        assert recipe[name] == getattr(plan, name)
    with pytest.raises(FrozenInstanceError):
        plan.law = 0.0


def test_the_seed_is_that_of_the_rug(profile):
    one, other = (pr.make_plan(profile, ratio=0.1, decoder="bayes", seed=seed) for seed in (0, 1))
    assert (one[1].rug.seed, other[1].rug.seed) == (0, 1)
    assert one[0].law == pytest.approx(other[0].law, rel=0.01)
    assert one[0].held_out != other[0].held_out
