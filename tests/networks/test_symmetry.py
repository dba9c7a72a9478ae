"""Macroscopic statistics against brute force; verdicts on what is known to be a rug, knotted, or neither."""

import re
from dataclasses import asdict

import numpy as np
import pytest
import scipy.stats
import torch

import persianrug as pr
from persianrug.networks import symmetry as module
from persianrug.networks.symmetry import measure_symmetry
from tests.networks.helpers import W_IN, W_OUT, of

RNG = np.random.default_rng(0)
SOURCE = pr.SparseUniform(0.1, scale=2.0)
# Those of a test by samples depend on which samples go to which feature, the last ones on the order of features.
SAMPLED = {"ks_statistic", "ks_p_value"}
ORDERED = {"verdict", "partners"}


def tiled(knot, count):
    """A pure tiling of a knot (d, k)."""
    W_in = np.kron(np.eye(count), knot)
    return W_in.T.copy(), W_in


def woven(knot, encoder):
    """The knot's channels, mixed by an encoder."""
    M_transposed, M = tiled(knot, encoder.n_sparse // len(knot))
    return M_transposed @ encoder.W_out().numpy(), encoder.W_in().numpy() @ M


def shuffled(weights, order):
    return weights[0][order], weights[1][:, order]


def rotated(weights, rotation):
    return weights[0] @ rotation.T, rotation @ weights[1]


def random_rotation(n):
    return np.linalg.qr(np.random.default_rng(1).normal(size=(n, n)))[0]


def without(found, names):
    return {name: value for name, value in asdict(found).items() if name not in names}


def close(a, b, rel=1e-9):
    for name, value in without(a, SAMPLED | ORDERED).items():
        assert value == pytest.approx(getattr(b, name), rel=rel, abs=1e-12), name


PAIR = np.array([[1.0, -1.0]])
TRIANGLE = np.stack([np.cos(2 * np.pi * np.arange(3) / 3), np.sin(2 * np.pi * np.arange(3) / 3)])


@pytest.mark.parametrize(
    "encoder",
    [
        pr.Rug(512, 128),
        pr.Rug(512, 128, seed=3, signs=False),
        pr.Rug(999, 250),
        pr.Rug(128, 100),
        pr.Rug(64, 16),
        pr.Gaussian(512, 128),
        pr.Gaussian(64, 16),
    ],
    ids=repr,
)
def test_rugs_and_random_codes_are_rug_like(encoder):
    found = measure_symmetry(*of(encoder))
    assert found.verdict == "rug-like"
    assert found.partner_count == 0
    assert found.diagonal_mean == pytest.approx(1)
    assert found.diagonal_variance < 1e-20


def test_the_statistics_of_a_rug_are_those_of_theory():
    source = pr.SparseUniform(0.3)
    found = measure_symmetry(*of(pr.Rug(512, 128)), source=source)
    assert found.interference_variance_mean == pytest.approx(source.variance * 3)
    assert found.interference_variance_variance < 1e-20
    # Gaussian entries: the mean of |z|^3 is 2 sqrt(2 / pi), the largest of n squares about 2 log n.
    assert found.lyapunov_mean == pytest.approx(1.6 / 512**0.5, rel=0.1)
    assert found.largest_share == pytest.approx(2 * np.log(512) / 512, rel=0.5)
    assert found.ks_p_value > 0.2
    assert found.bias_mean == found.bias_variance == 0


@pytest.mark.slow
def test_a_large_rug_takes_blocks_of_rows_only():
    found = measure_symmetry(*of(pr.Rug(8192, 2048)))
    assert found.verdict == "rug-like"
    assert found.lyapunov_max == pytest.approx(1.6 / 8192**0.5, rel=0.05)
    assert found.ks_p_value > 0.2


def test_pairs_have_one_partner_each():
    order = RNG.permutation(64)
    found = measure_symmetry(*shuffled(tiled(PAIR, 32), order))
    assert found.verdict.startswith("knotted: 1 partner a feature, such as feature 0 with ")
    assert "negative, -1 on average where the diagonal is 1, carry 100% of the interference" in found.verdict
    assert found.partners.shape == (64, 1)
    assert np.array_equal(order[found.partners[:, 0]], order ^ 1)
    assert (found.partner_count, found.partner_share, found.partner_negative) == (1, 1, 1)
    assert found.partner_entry == pytest.approx(-1)
    assert found.lyapunov_mean == found.lyapunov_max == pytest.approx(1)
    assert found.ks_p_value < 1e-9


@pytest.mark.parametrize(("n_dense", "share"), [(128, 1 / 3), (51, 0.111)])
def test_pairs_woven_with_a_rug_have_one_partner_each(n_dense, share):
    found = measure_symmetry(*woven(PAIR, pr.Rug(256, n_dense)))
    assert found.verdict.startswith("knotted: 1 partner a feature, such as feature 0 with 1, negative")
    assert np.array_equal(found.partners[:, 0], np.arange(512) ^ 1)
    assert found.partner_share == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("count", [2, 20])
def test_triangles_have_two_partners_each_however_they_are_rotated(count, dtype):
    weights = rotated(tiled(TRIANGLE, count), random_rotation(2 * count))
    found = measure_symmetry(*(part.astype(dtype) for part in weights))
    assert found.verdict.startswith(
        "knotted: 2 partners a feature, such as feature 0 with 1, 2, negative, -0.5 on"
    )
    assert {tuple(sorted(row)) for row in found.partners[:3]} == {(1, 2), (0, 2), (0, 1)}
    assert found.partners.shape == (3 * count, 2)


def test_positive_and_mixed_partners_are_called_so():
    assert " 1, positive, 1 on average" in measure_symmetry(*tiled(-np.abs(PAIR), 32)).verdict
    assert "67% negative" in measure_symmetry(*tiled(np.array([[1.0, -1.0, -1.0]]), 20)).verdict
    uneven = np.array([[1.0, -1.0, 0.5], [0.0, 0.0, 1.0]])
    assert measure_symmetry(*tiled(uneven, 20)).verdict.endswith(
        "100% of the interference; diagonals differ by 11%"
    )


def test_many_partners_are_cut_short():
    found = measure_symmetry(*tiled(np.ones((1, 40)), 4))
    assert found.partner_count == 39
    assert found.partners.shape == (160, 32)
    assert ", ..., positive" in found.verdict


def test_a_network_that_is_not_symmetric_is_neither():
    W_out, W_in = RNG.normal(size=(512, 128)), RNG.normal(size=(128, 512))
    assert measure_symmetry(W_out, W_in).verdict.startswith("neither: diagonals differ by ")
    # As an encoder its diagonal is 1, and its interference anything.
    dense = of(pr.Dense(W_in, W_out))
    assert measure_symmetry(*dense).verdict.startswith("neither: interference variances differ by ")
    W_in = RNG.normal(size=(128, 512)) / 128**0.5
    # By (2 / 128)^(1/2), which is 12.5%.
    assert re.fullmatch("neither: diagonals differ by 1[1-4]%", measure_symmetry(W_in.T.copy(), W_in).verdict)


def test_skewed_and_heavy_interference_without_partners_is_neither():
    n = 256
    entries = -RNG.gamma(2.0, size=(n, n))
    entries[np.diag_indices(n)] = 5.0
    assert "interference has a skewness of -" in measure_symmetry(entries, np.eye(n)).verdict
    # Heavier than Gaussian by single entries that carry little.
    n = 1024
    entries = RNG.normal(size=(n, n))
    entries[:, 1:] += 9 * np.eye(n)[:, :-1]
    entries[np.diag_indices(n)] = 10.0
    assert "single entries stand out, but carry only 7% of the" in measure_symmetry(entries, np.eye(n)).verdict


def test_biases_count_unless_they_make_up_for_the_mean_interference():
    encoder, source = pr.Rug(512, 128), pr.SparseUniform(0.5)
    W = encoder.W().numpy()
    centring = -source.mean * (W.sum(axis=1) - 1)
    alike = measure_symmetry(*of(encoder), np.full(512, -0.4), source)
    centred = measure_symmetry(*of(encoder), centring, source)
    apart = measure_symmetry(*of(encoder), RNG.permutation(centring), source)
    assert alike.verdict == centred.verdict == "rug-like"
    assert alike.bias_mean == pytest.approx(-0.4)
    assert alike.bias_variance < 1e-20
    assert centred.offset_variance < 1e-20 < centred.bias_variance
    assert apart.verdict.startswith("neither: biases differ by ")


def test_a_trained_network_is_knotted():
    n, steps = 64, 1200
    generator = torch.Generator().manual_seed(0)
    W_in = (torch.randn(16, n, generator=generator) / n**0.5).requires_grad_()
    W_out = W_in.detach().T.clone().requires_grad_()
    bias = torch.zeros(n, requires_grad=True)
    optimiser = torch.optim.Adam([W_in, W_out, bias], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    source = pr.SparseUniform(0.045)
    for _ in range(steps):
        x = source.sample(512, n, seed=generator)
        loss = (torch.relu(x @ W_in.T @ W_out.T + bias) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = measure_symmetry(W_out, W_in, bias, source)
    assert found.verdict.startswith("knotted: ")
    assert found.partner_negative > 0.99
    assert found.skewness < -1


@pytest.mark.parametrize("n", [17, 300])
def test_statistics_are_those_of_the_whole_matrix(n):
    rng = np.random.default_rng(n)
    W_out, W_in, bias = rng.normal(size=(n, 6)), rng.normal(size=(6, n)), rng.normal(size=n)
    W_in[:, 3] *= 20
    W_in[:, 5] *= -20
    found = measure_symmetry(W_out, W_in, bias, SOURCE)
    W = W_out @ W_in
    eps = W - np.diag(np.diag(W))
    squares, cubes = (eps**2).sum(axis=1), (np.abs(eps) ** 3).sum(axis=1)
    others = eps[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    means = SOURCE.mean * eps.sum(axis=1)
    # Those standard normal numbers that are smaller than the median have the mean square 0.1427.
    smaller = np.sort(np.abs(others))[:, : n // 2]
    deviation = np.sqrt((smaller**2).mean(axis=1) / 0.142652)
    stands_out = np.abs(eps) > 1.5 * np.sqrt(2 * np.log(n)) * deviation[:, None]
    expected = {
        "n_sparse": n,
        "n_dense": 6,
        "diagonal_mean": np.diag(W).mean(),
        "diagonal_variance": np.diag(W).var(ddof=1),
        "bias_mean": bias.mean(),
        "bias_variance": bias.var(ddof=1),
        "interference_variance_mean": SOURCE.variance * squares.mean(),
        "interference_variance_variance": SOURCE.variance**2 * squares.var(ddof=1),
        "interference_mean_variance": means.var(ddof=1),
        "offset_variance": (bias + means).var(ddof=1),
        "lyapunov_mean": (cubes / squares**1.5).mean(),
        "lyapunov_max": (cubes / squares**1.5).max(),
        "paper_lyapunov_mean": (cubes / squares).mean(),
        "paper_lyapunov_max": (cubes / squares).max(),
        "skewness": scipy.stats.skew(others, axis=1).mean(),
        "largest_share": np.median((eps**2).max(axis=1) / squares),
        "partner_count": np.median(stands_out.sum(axis=1)),
        "partner_share": ((eps**2 * stands_out).sum(axis=1) / squares).mean(),
        "partner_entry": eps[stands_out].mean(),
        "partner_negative": (eps[stands_out] < 0).mean(),
    }
    assert expected.keys() == without(found, SAMPLED | ORDERED).keys()
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name
    for row, partners in zip(stands_out, found.partners, strict=True):
        assert set(np.flatnonzero(row)) == set(partners[partners >= 0])
    assert found.partner_count >= 1


def test_the_test_is_that_of_standardised_interference():
    encoder = pr.Rug(32, 8)
    found = measure_symmetry(*of(encoder), source=SOURCE, samples=100, seed=5)
    x = SOURCE.sample(100, 32, seed=5, dtype=torch.float64).numpy()
    W = encoder.W().numpy()
    nu = (x - SOURCE.mean) @ (W - np.eye(32)).T / np.sqrt(3 * SOURCE.variance)
    tests = [scipy.stats.kstest(column, "norm") for column in nu.T]
    assert found.ks_statistic == pytest.approx(np.median([test.statistic for test in tests]))
    assert found.ks_p_value == pytest.approx(np.median([test.pvalue for test in tests]))
    assert measure_symmetry(*of(encoder), source=SOURCE, samples=100, seed=6).ks_p_value != found.ks_p_value


def test_samples_taken_in_batches_are_the_same_in_law(monkeypatch):
    monkeypatch.setattr(module, "_MOST_ENTRIES_HELD", 512 * 100)
    assert measure_symmetry(*of(pr.Rug(512, 128)), source=pr.SparseUniform(0.3)).ks_p_value > 0.2


def test_sparser_sources_are_less_gaussian():
    weights = of(pr.Rug(512, 128))
    values = [measure_symmetry(*weights, source=pr.SparseUniform(p)).ks_p_value for p in (0.3, 0.01, 0.002)]
    assert values[0] > 0.2 > values[1] > 1e-9 > values[2]


SKEW = (RNG.normal(size=(60, 12)) + 0.2, RNG.normal(size=(12, 60)), RNG.normal(size=60))
CASES = {"any": SKEW, "woven": (*woven(PAIR, pr.Rug(32, 16)), np.linspace(0, 1, 64))}


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_features_does_not_matter(case):
    W_out, W_in, bias = CASES[case]
    order = RNG.permutation(len(bias))
    whole = measure_symmetry(W_out, W_in, bias, SOURCE)
    mixed = measure_symmetry(*shuffled((W_out, W_in), order), bias[order], SOURCE)
    close(whole, mixed)
    place = np.append(np.argsort(order), -1)
    for old, new in zip(whole.partners[order], mixed.partners, strict=True):
        assert set(place[old]) == set(new)


@pytest.mark.parametrize("case", CASES)
def test_the_hidden_space_may_be_rotated(case):
    W_out, W_in, bias = CASES[case]
    whole = measure_symmetry(W_out, W_in, bias, SOURCE)
    turned = measure_symmetry(*rotated((W_out, W_in), random_rotation(len(W_in))), bias, SOURCE)
    close(whole, turned)
    assert turned.ks_p_value == pytest.approx(whole.ks_p_value, rel=1e-6)
    assert turned.verdict == whole.verdict
    assert np.array_equal(np.sort(turned.partners), np.sort(whole.partners))


@pytest.mark.parametrize("case", CASES)
def test_kinds_and_precisions_agree(case):
    whole = measure_symmetry(*CASES[case], SOURCE)
    single = measure_symmetry(*(torch.from_numpy(part).float() for part in CASES[case]), SOURCE)
    close(whole, single, rel=1e-4)
    assert whole.verdict == single.verdict
    close(whole, measure_symmetry(*(torch.from_numpy(part).requires_grad_() for part in CASES[case]), SOURCE))


@pytest.mark.parametrize("case", CASES)
def test_scale(case):
    W_out, W_in, bias = CASES[case]
    whole, twice = measure_symmetry(W_out, W_in, bias, SOURCE), measure_symmetry(2 * W_out, W_in, 2 * bias, SOURCE)
    powers = {
        **dict.fromkeys(("diagonal_mean", "bias_mean", "partner_entry"), 1),
        **dict.fromkeys(("paper_lyapunov_mean", "paper_lyapunov_max"), 1),
        **dict.fromkeys(("diagonal_variance", "bias_variance", "offset_variance"), 2),
        **dict.fromkeys(("interference_variance_mean", "interference_mean_variance"), 2),
        "interference_variance_variance": 4,
    }
    for name, value in without(whole, ORDERED).items():
        assert getattr(twice, name) == pytest.approx(2 ** powers.get(name, 0) * value, rel=1e-9, abs=1e-12), name
    assert twice.verdict.split(", ")[:-2] == whole.verdict.split(", ")[:-2]
    assert np.array_equal(twice.partners, whole.partners)


@pytest.mark.parametrize("scale", [1e-200, 1e-60, 1e29])
def test_extreme_scales_do_no_harm(scale):
    W_out, W_in = of(pr.Rug(64, 16))
    found = measure_symmetry(W_out * scale, W_in)
    assert found.verdict == "rug-like"
    assert found.lyapunov_max == pytest.approx(measure_symmetry(W_out, W_in).lyapunov_max)
    assert all(np.isfinite(value) for value in without(found, ORDERED).values())


def test_no_bias_is_a_bias_of_nought():
    weights = of(pr.Rug(64, 16))
    assert (
        measure_symmetry(*weights)
        == measure_symmetry(*weights, np.zeros(64))
        == measure_symmetry(*weights, bias=None)
    )


def test_arguments_are_left_as_they_are():
    copies = [part.copy() for part in SKEW]
    measure_symmetry(*SKEW)
    assert all(np.array_equal(part, copy) for part, copy in zip(SKEW, copies, strict=True))


def test_features_without_interference_are_left_out():
    W_in = np.zeros((33, 65))
    W_in[:32, :64] = tiled(PAIR, 32)[1]
    W_in[32, 64] = 1.0
    found = measure_symmetry(W_in.T.copy(), W_in)
    assert found.lyapunov_mean == found.partner_share == pytest.approx(1)
    assert found.partners[64, 0] == -1
    assert found.verdict.startswith("knotted: 1 partner")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_without_any_interference_numbers_are_finite(dtype):
    rotation = random_rotation(32).astype(dtype)
    for weights in ((rotation.T.copy(), rotation), (np.zeros((32, 4), dtype), np.zeros((4, 32), dtype))):
        found = measure_symmetry(*weights)
        assert "there is no interference" in found.verdict
        assert found.lyapunov_mean == found.lyapunov_max == found.skewness == found.ks_statistic == 0
        assert found.ks_p_value == 1
        assert found.partners.shape == (32, 0)
        assert all(np.isfinite(value) for value in without(found, ORDERED).values())


def test_a_source_without_variance_has_nothing_to_test():
    found = measure_symmetry(*of(pr.Rug(64, 16)), source=pr.SparseConstant(1.0))
    assert (found.ks_p_value, found.interference_variance_mean) == (1, 0)


def test_few_features_are_too_few_to_tell():
    for n in (2, 3, 8):
        found = measure_symmetry(np.ones((n, 1)), np.ones((1, n)))
        assert found.verdict == f"neither: {n} features are too few to tell"
    assert measure_symmetry(*tiled(PAIR, 2)).verdict.startswith("knotted: 1 partner")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((W_IN, W_IN), r"W_out has shape \(4, 16\); allowed: \(16, 4\), as W_in"),
        ((W_OUT[:, :3], W_IN), r"W_out has shape \(16, 3\); allowed: \(16, 4\), as W_in"),
        ((W_IN, W_OUT), r"W_in has shape \(16, 4\); allowed: .* with n_dense <= n_sparse; are W_in and W_out, or"),
        ((W_OUT, W_IN[0]), r"W_in has shape \(16,\); allowed: \(n_dense, n_sparse\)"),
        ((W_OUT[:1], W_IN[:, :1]), r"W_in has shape \(4, 1\); allowed: .* n_sparse >= 2"),
        ((W_OUT[:, :0], W_IN[:0]), r"W_in has shape \(0, 16\)"),
        ((W_OUT, W_IN, np.zeros(15)), r"bias has shape \(15,\); allowed: \(16,\)"),
        ((W_OUT * np.nan, W_IN), "W_out holds NaN or infinity; allowed: finite"),
        ((W_OUT, W_IN, np.full(16, np.inf)), "bias holds NaN or infinity; allowed: finite"),
        ((W_OUT, W_IN * 1e40), r"W_in holds sizes up to 2.5e\+39; allowed: up to 1e\+30"),
        ((W_OUT.tolist(), W_IN), "W_out is a list; allowed: a torch.Tensor"),
        ((W_OUT, W_IN.astype(int)), "W_in has dtype int64; allowed: float32"),
        (
            (W_OUT, W_IN, None, pr.SparseUniform(np.full(16, 0.1))),
            "uniform has features that differ; allowed here",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        measure_symmetry(*arguments)


@pytest.mark.parametrize("wrong", [{"samples": 7}, {"samples": 1 << 19}, {"samples": 9.5}, {"seed": -1}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="allowed: an integer from"):
        measure_symmetry(W_OUT, W_IN, **wrong)
