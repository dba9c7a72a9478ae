"""Encoders as operators: dot test, tight frame, gradients, recipes that never change."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
from persianrug.encoders import from_recipe
from persianrug.encoders.base import kept_entries

SHAPES = [
    (2, 1),
    (2, 2),
    (3, 1),
    (3, 2),
    (4, 3),
    (7, 7),
    (16, 5),
    (100, 1),
    (100, 25),
    (100, 26),
    (999, 250),
    (1024, 256),
]


def dense_of(n_sparse, n_dense, seed=0):
    rng = np.random.default_rng(seed)
    return pr.Dense(rng.normal(size=(n_dense, n_sparse)), rng.normal(size=(n_sparse, n_dense)))


MAKERS = {
    "rug": pr.Rug,
    "rug without signs": lambda n, m: pr.Rug(n, m, signs=False),
    "gaussian": pr.Gaussian,
    "dense": dense_of,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(("n_sparse", "n_dense"), SHAPES)
def test_operator_adjoint_readout_and_matrices_agree(make, n_sparse, n_dense):
    encoder = make(n_sparse, n_dense)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, n_sparse, dtype=torch.float64, generator=generator)
    z = torch.randn(2, 3, n_dense, dtype=torch.float64, generator=generator)
    W_in, W_out, W = encoder.W_in(), encoder.W_out(), encoder.W()
    assert (W_in.shape, W_out.shape) == ((n_dense, n_sparse), (n_sparse, n_dense))
    scale = float(W.abs().max())
    assert torch.allclose(encoder.encode(x), x @ W_in.T, atol=1e-12)
    assert torch.allclose(encoder.adjoint(z), z @ W_in, atol=1e-12)
    assert torch.allclose(encoder.readout(z), z @ W_out.T, rtol=1e-10, atol=1e-12 * scale)
    assert torch.allclose(W, W_out @ W_in, rtol=1e-10, atol=1e-12 * scale)
    # Dot test.
    assert torch.allclose((encoder.encode(x) * z).sum(), (x * encoder.adjoint(z)).sum(), atol=1e-11)
    assert torch.allclose(W.diagonal(), torch.ones(n_sparse, dtype=torch.float64), atol=1e-12 * scale)


@pytest.mark.parametrize("signs", [True, False])
@pytest.mark.parametrize(("n_sparse", "n_dense"), SHAPES)
def test_the_rug_is_a_tight_frame_with_columns_of_one_norm(n_sparse, n_dense, signs):
    rug = pr.Rug(n_sparse, n_dense, seed=3, signs=signs)
    W_in = rug.W_in()
    assert torch.allclose(W_in @ W_in.T, torch.eye(n_dense, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(
        W_in.square().sum(0), torch.full((n_sparse,), rug.ratio, dtype=torch.float64), atol=1e-12
    )
    W = rug.W()
    off = W.square().sum(1) - W.diagonal().square()
    assert np.allclose(off.numpy(), rug.interference, atol=1e-10)
    assert rug.interference == pytest.approx((1 - rug.ratio) / rug.ratio)


@given(n=st.integers(2, 300), data=st.data())
def test_every_size_makes_a_rug(n, data):
    n_dense = data.draw(st.integers(1, n))
    rug = pr.Rug(n, n_dense, seed=data.draw(st.integers(0, 5)))
    assert len(set(rug.rows.tolist())) == n_dense
    assert (np.diff(rug.rows) > 0).all()
    assert 0 <= rug.rows[0] <= rug.rows[-1] < n
    x = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    assert torch.allclose(rug.encode(rug.adjoint(rug.encode(x))), rug.encode(x), atol=1e-12)


def off_diagonal(encoder):
    W = encoder.W().numpy()
    return W[~np.eye(len(W), dtype=bool)].reshape(len(W), -1)


@pytest.mark.parametrize(("n_sparse", "n_dense"), [(2, 1), (3, 2), (64, 16), (100, 25), (999, 250), (512, 51)])
def test_interference_and_its_inverse_participation_are_those_of_W(n_sparse, n_dense):
    for make in MAKERS.values():
        encoder = make(n_sparse, n_dense)
        squares = off_diagonal(encoder) ** 2
        assert np.allclose(encoder.interference, squares.sum(1), rtol=1e-9)
        found = ((squares**2).sum(1) / squares.sum(1) ** 2).mean()
        assert encoder.inverse_participation == pytest.approx(found, rel=1e-9)
        assert 1 / (n_sparse - 1) * (1 - 1e-9) <= found <= 1


def test_the_interference_of_random_columns_is_one_over_the_ratio():
    assert pr.Gaussian(2000, 500).interference.mean() == pytest.approx(4, rel=0.01)


def test_without_interference_inverse_participation_is_finite():
    for encoder in (pr.Rug(8, 8), pr.Rug(9, 9), pr.Dense(np.eye(4))):
        assert 1 / encoder.n_sparse <= encoder.inverse_participation <= 1


def test_a_rug_is_the_same_for_ever():
    # The digest of rows and signs as first released: codes stored anywhere depend on it.
    digests = {}
    for n, m, seed in [(16, 5, 0), (1024, 100, 1), (999, 250, 2), (765, 382, 0)]:
        rug = pr.Rug(n, m, seed)
        digests[n] = hashlib.sha256(
            rug.rows.astype("<i8").tobytes() + rug._signs.astype("<f8").tobytes()
        ).hexdigest()[:16]
    assert pr.Rug(16, 5).rows.tolist() == EXPECTED_ROWS
    assert digests == EXPECTED_DIGESTS


EXPECTED_ROWS = [2, 3, 11, 13, 15]
EXPECTED_DIGESTS = {
    16: "d619f35063697cf3",
    1024: "13b4d046c673a8f1",
    999: "52a6ab44471b299d",
    765: "b0c477c7f0afcc11",
}


def test_seeds_and_signs_make_different_rugs():
    a, b = pr.Rug(256, 64, seed=0), pr.Rug(256, 64, seed=1)
    assert a != b
    assert a == pr.Rug(256, 64, seed=0)
    assert len({a, b, pr.Rug(256, 64, seed=0)}) == 2
    assert not torch.equal(a.W(), b.W())
    signs = torch.from_numpy(a._signs)
    plain = pr.Rug(256, 64, seed=0, signs=False)
    assert torch.allclose(signs[:, None] * plain.W() * signs, a.W(), atol=1e-12)
    assert 96 < int((signs > 0).sum()) < 160


def test_the_paper_s_weights_give_the_same_W():
    # W_in the rows of the +-1 Hadamard matrix, W_out their transpose over n_dense.
    rug = pr.Rug(64, 16, signs=False)
    hadamard = torch.tensor(
        [[(-1.0) ** (i & j).bit_count() for j in range(64)] for i in range(64)], dtype=torch.float64
    )
    rows = hadamard[torch.from_numpy(rug.rows)]
    assert torch.allclose(rows.T @ rows / 16, rug.W(), atol=1e-12)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_estimate_is_unbiased_around_the_mean(make):
    encoder = make(60, 20)
    x = torch.full((2, 60), 0.3, dtype=torch.float64)
    # With every feature at the mean there is no interference.
    assert torch.allclose(encoder.estimate(encoder.encode(x), mean=0.3), x, atol=1e-10)
    y = torch.rand(2, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    estimate = encoder.estimate(encoder.encode(y), mean=0.3)
    assert torch.allclose(estimate, 0.3 + (y - 0.3) @ encoder.W().T, atol=1e-10)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("n", [6, 8])
def test_gradients(make, n):
    encoder = make(n, 3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, n, dtype=torch.float64, requires_grad=True, generator=generator)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True, generator=generator)
    assert torch.autograd.gradcheck(encoder.encode, x)
    assert torch.autograd.gradcheck(encoder.adjoint, z)
    assert torch.autograd.gradcheck(lambda z: encoder.estimate(z, 0.2), z)
    assert torch.autograd.gradgradcheck(lambda x: encoder.encode(x).square(), x)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("n", [6, 8])
def test_what_inference_mode_leaves_behind_has_gradients(make, n):
    encoder = make(n, 3)
    with torch.inference_mode():
        encoder.readout(encoder.encode(torch.ones(1, n)))
    x = torch.rand(2, n, generator=torch.Generator().manual_seed(0)).requires_grad_()
    encoder.estimate(encoder.encode(x), 0.1).sum().backward()
    assert x.grad is not None


def test_given_weights_of_any_size_and_precision():
    for size in (1e-30, 1e30):
        weights = np.full((2, 4), size, dtype=np.float32)
        assert torch.allclose(pr.Dense(weights).W(), torch.ones(4, 4, dtype=torch.float64), rtol=1e-5)
    mixed = pr.Dense(np.ones((2, 4), dtype=np.float32), np.full((4, 2), 1 / 3))
    assert mixed.tensors()["W_out"].dtype == torch.float64


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0, 3), (3000,)])
def test_batch_shapes_dtypes_and_unchanged_input(make, shape):
    encoder = make(64, 16)
    for dtype in (np.float32, np.float64):
        base = np.random.default_rng(0).normal(size=(*shape, 128)).astype(dtype)
        x = base[..., ::2]
        before = base.copy()
        z = encoder.encode(x)
        assert isinstance(z, np.ndarray)
        assert (z.dtype, z.shape) == (dtype, (*shape, 16))
        code = z.copy()
        assert encoder.readout(z).shape == x.shape
        assert encoder.estimate(z, 0.1).dtype == dtype
        assert np.array_equal(z, code)
        assert np.array_equal(base, before)
        as_tensor = encoder.encode(torch.from_numpy(x.copy()))
        assert isinstance(as_tensor, torch.Tensor)
        assert np.array_equal(as_tensor.numpy(), z)
        # Chunks of rows change nothing.
        one_by_one = [encoder.encode(row[None]) for row in x.reshape(-1, 64)[:3]]
        assert np.allclose(z.reshape(-1, 16)[:3], np.concatenate(one_by_one or [z.reshape(-1, 16)]), atol=1e-5)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_recipes_make_the_same_encoder(make):
    encoder = make(20, 8)
    again = from_recipe(encoder.recipe(), encoder.tensors())
    assert torch.equal(encoder.W_in(), again.W_in())
    assert torch.equal(encoder.W_out(), again.W_out())


def test_they_print_what_they_are():
    assert repr(pr.Rug(8192, 2048)) == "Rug(n_sparse=8192, n_dense=2048, seed=0)"
    assert repr(pr.Rug(8, 4, signs=False)) == "Rug(n_sparse=8, n_dense=4, seed=0, signs=False)"
    assert repr(pr.Gaussian(8, 4, 1)) == "Gaussian(n_sparse=8, n_dense=4, seed=1)"
    assert repr(dense_of(5, 2)) == "Dense(n_sparse=5, n_dense=2)"


def test_n_dense_is_the_nearest_to_the_ratio():
    assert pr.Rug.of_ratio(8192, 0.1).n_dense == 819
    assert pr.Rug.of_ratio(2, 1.0).n_dense == 2
    with pytest.raises(ValueError, match=r"ratio is 0\.1, which makes n_dense 0 at n_sparse 4"):
        pr.Rug.of_ratio(4, 0.1)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((1, 1), "n_sparse"), ((8, 0), "n_dense"), ((8, 9), "n_dense"), ((8.5, 2), "n_sparse"), ((8, 2, -1), "seed"),
     ((2**31, 4), "n_sparse"), (("8", 2), "n_sparse")],
)  # fmt: skip
@pytest.mark.parametrize("kind", [pr.Rug, pr.Gaussian])
def test_bad_sizes_are_refused(kind, arguments, name):
    with pytest.raises(ValueError, match=f"{name} is .*; allowed: an integer"):
        kind(*arguments)


def test_signs_are_true_or_false():
    with pytest.raises(ValueError, match="signs is 'no'; allowed: True, False"):
        pr.Rug(8, 4, signs="no")


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, np.nan])
def test_bad_ratios_are_refused(ratio):
    for refused in (lambda: pr.Rug.of_ratio(100, ratio), lambda: pr.noise_level(1.0, ratio)):
        with pytest.raises(ValueError, match="ratio is"):
            refused()


@pytest.mark.parametrize(
    ("W_in", "W_out", "word"),
    [
        (np.ones(3), None, "W_in has shape"),
        (np.ones((2, 1)), None, "W_in has shape"),
        (np.ones((2, 4)), np.ones((2, 4)), "W_out has shape"),
        (np.ones((4, 2)), np.ones((2, 4)), r"W_in has shape \(4, 2\); allowed: .* n_dense <= n_sparse; are W_in"),
        (np.full((2, 4), np.nan), None, "W_in holds NaN"),
        (np.ones((2, 4)), np.full((4, 2), np.inf), "W_out holds NaN"),
        (np.eye(2, 4), None, "0 on its diagonal at feature 2"),
        (np.ones((2, 4), dtype=int), None, "W_in has dtype"),
        (np.ones((2, 4)), "x", "W_out is a str"),
    ],
)
def test_bad_weights_are_refused(W_in, W_out, word):
    with pytest.raises(ValueError, match=word):
        pr.Dense(W_in, W_out)


@pytest.mark.parametrize("method", ["encode", "adjoint", "readout", "estimate"])
def test_bad_vectors_are_refused(method):
    rug = pr.Rug(8, 4)
    for bad in (np.zeros(5), np.zeros((2, 8), dtype=int), [0.0] * 8, torch.zeros(8, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match=r"[xz] (has|is) .*; allowed"):
            getattr(rug, method)(bad)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("method", ["encode", "adjoint", "readout", "estimate"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_that_no_vector_has_are_refused(make, method, dtype):
    encoder = make(64, 16)
    name, width = ("x", 64) if method == "encode" else ("z", 16)
    # Enough rows for several chunks, the bad one in the last.
    rows = torch.zeros(10000, width, dtype=dtype)
    for bad, word in (
        *((bad, "holds NaN or infinity; allowed: finite numbers") for bad in (np.nan, np.inf, -np.inf)),
        (-1e38, r"holds sizes up to 1e\+38; allowed: up to .*e\+3[01]"),
    ):
        rows[-1, 3] = bad
        with pytest.raises(ValueError, match=f"{name} {word}"):
            getattr(encoder, method)(rows)
        with pytest.raises(ValueError, match=f"{name} {word}"):
            getattr(encoder, method)(rows[-1].requires_grad_())
    rows[-1, 3] = 1e30
    assert bool(getattr(encoder, method)(rows).isfinite().all())


def test_what_is_not_looked_at_goes_through():
    x = np.zeros((2, 64))
    x[1, 5] = np.nan
    found = pr.Rug(64, 16).encode(x, check=False)
    assert np.array_equal(np.isnan(found), np.repeat([[False], [True]], 16, axis=1))


@pytest.mark.parametrize("recipe", [{}, {"name": "nope"}, {"name": "rug"}, {"name": "rug", "n_sparse": 4, "x": 1}])
def test_bad_recipes_are_refused(recipe):
    with pytest.raises(ValueError, match="encoder"):
        from_recipe(recipe, {})


CLEAR = pr.Channel()


def made_of(encoder, variance):
    """sum_{j != i} W_ij^2 v_j, from the matrix itself."""
    squares = encoder.W().numpy() ** 2
    np.fill_diagonal(squares, 0)
    return squares @ np.broadcast_to(variance, len(squares))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(("n_sparse", "n_dense"), [(64, 16), (60, 20), (60, 21), (63, 20), (63, 63), (300, 90)])
def test_interference_of_features_that_differ_is_that_of_W(make, n_sparse, n_dense):
    encoder = make(n_sparse, n_dense)
    variances = np.random.default_rng(0).exponential(size=n_sparse) ** 2
    single = np.zeros(n_sparse)
    single[3] = 2.0
    for variance in (0.7, np.full(n_sparse, 0.7), variances, single):
        found = encoder.interference_of(variance, CLEAR)
        expected = made_of(encoder, variance)
        assert np.allclose(found, expected, rtol=1e-8, atol=1e-10 * expected.max() + 1e-12)
    assert np.ndim(encoder.interference_of(variances, CLEAR)) == 1
    assert np.allclose(encoder.interference_of(1.0, CLEAR), encoder.interference, atol=1e-12)


@pytest.mark.parametrize(("n_sparse", "n_dense"), [(64, 32), (60, 30), (63, 32)])
@pytest.mark.parametrize("erasures", [0.1, 0.4])
def test_with_erasures_a_rug_is_as_its_parts_on_average(n_sparse, n_dense, erasures):
    rug, channel = pr.Rug(n_sparse, n_dense, seed=1), pr.Channel(erasures=erasures)
    kept = channel.kept(n_dense)
    assert kept < n_dense
    variances = np.geomspace(0.1, 3, n_sparse)
    rng, W_in = np.random.default_rng(0), rug.W_in().numpy()
    alike, differing, participation, gain = [], [], [], []
    for _ in range(1000):
        part = W_in[rng.choice(n_dense, kept, replace=False)]
        W_out = n_sparse / kept * part.T
        squares = (W_out @ part) ** 2
        np.fill_diagonal(squares, 0)
        totals = squares.sum(1)
        alike.append(totals.mean())
        differing.append(squares @ variances)
        participation.append(((squares**2).sum(1) / totals**2).mean())
        gain.append((W_out**2).sum(1).mean())
    # Of alike features and noise exact, since sums over them do not depend on which rows are left.
    assert rug.interference_of(1.0, channel) == pytest.approx(np.mean(alike), rel=1e-2)
    assert rug.noise_gain(channel) == pytest.approx(np.mean(gain), rel=1e-9)
    errors = np.std(differing, axis=0) / 1000**0.5
    found = rug.interference_of(variances, channel)
    assert found.shape == (n_sparse,)
    assert (np.abs(found - np.mean(differing, axis=0)) < 5 * errors + 0.01 * found).all()
    assert rug.participation_of(channel) == pytest.approx(np.mean(participation), rel=0.1)
    # What erasures add is seen.
    assert (found > 1.05 * rug.interference_of(variances, CLEAR)).all()


def test_without_erasures_participation_and_gain_are_those_of_the_matrices():
    for n_sparse, n_dense in [(64, 16), (60, 20), (63, 20)]:
        for make in MAKERS.values():
            encoder = make(n_sparse, n_dense)
            assert encoder.participation_of(CLEAR) == encoder.inverse_participation
            gain = encoder.W_out().square().sum(1).numpy()
            assert np.allclose(encoder.noise_gain(CLEAR), gain, rtol=1e-10)
            power = encoder.W_in().square().sum() / n_dense
            assert encoder.code_power == pytest.approx(float(power), rel=1e-12)


def test_only_a_rug_bears_erasures():
    channel = pr.Channel(erasures=0.2)
    for encoder in (pr.Gaussian(10, 5), dense_of(10, 5)):
        for ask in (
            lambda e: e.interference_of(1.0, channel), lambda e: e.noise_gain(channel),
            lambda e: e.participation_of(channel),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=r"erasures is 0\.2; allowed with encoder .*: 0"):
                ask(encoder)


def test_frame_bounds():
    assert pr.Rug(60, 20).frame_bound == 1
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 12)))[0].T
    for size in (1e-6, 1.0, 30.0):
        assert pr.Dense(size * rows).frame_bound == pytest.approx(size**2, rel=1e-9)
    # Trained weights in float32 are as tight as these can be.
    assert pr.Dense((3 * rows).astype(np.float32)).frame_bound == pytest.approx(9, rel=1e-5)
    for loose in (pr.Gaussian(60, 20), pr.Dense(rows * np.linspace(1, 1.01, 12)[:, None]), dense_of(30, 12)):
        with pytest.raises(ValueError, match=r"encoder .* is no tight frame; allowed"):
            _ = loose.frame_bound


@pytest.mark.parametrize("n", [64, 60])
def test_the_estimate_of_codes_with_missing_entries_is_unbiased(n):
    rug = pr.Rug(n, n // 2, seed=2)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, n, dtype=torch.float64, generator=generator)
    mean = np.linspace(-1, 1, n)
    z = rug.encode(x).expand(20_000, -1)
    erased = pr.Channel(erasures=0.3).transmit(z, seed=generator)
    estimates = rug.estimator(mean, z, erasures=True)(erased)
    errors = estimates.std(0) / 20_000**0.5
    assert float(errors.min()) > 1e-4
    # Those that are left stand for those that are missing.
    full = rug.estimate(rug.encode(x), mean)[0]
    assert ((estimates.mean(0) - full).abs() < 4.5 * errors).all()
    # The mean itself is read exactly, whichever entries are left.
    at_mean = rug.encode(torch.from_numpy(mean)[None]).expand(5, -1)
    erased = pr.Channel(erasures=0.5).transmit(at_mean, seed=1)
    assert torch.allclose(
        rug.estimator(mean, z, erasures=True)(erased), torch.from_numpy(mean).expand(5, -1), atol=1e-12
    )


def test_codes_may_miss_different_numbers_of_entries():
    rug = pr.Rug(16, 8)
    z = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    erased = z.clone()
    erased[1, :2] = erased[2, 3:] = torch.nan
    assert kept_entries(erased).tolist() == [[8], [6], [3]]
    before = erased.clone()
    found = rug.estimator(0.0, z, erasures=True)(erased)
    scaled = z * torch.tensor([[1.0], [8 / 6], [8 / 3]])
    assert torch.allclose(found, rug.readout(torch.where(erased.isnan(), 0.0, scaled)), atol=1e-12)
    assert torch.equal(erased.isnan(), before.isnan())


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_mean_may_differ_by_feature(make):
    encoder = make(60, 20)
    mean = np.random.default_rng(1).normal(size=60)
    y = torch.rand(2, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(mean) + (y - torch.from_numpy(mean)) @ encoder.W().T
    assert torch.allclose(encoder.estimate(encoder.encode(y), mean), expected, atol=1e-9)
    as_float = encoder.estimate(encoder.encode(y.float()), mean)
    assert as_float.dtype == torch.float32
    assert torch.allclose(as_float.double(), expected, rtol=1e-4, atol=1e-3)


def test_a_code_whose_entries_are_all_missing_is_refused():
    rug = pr.Rug(16, 8)
    z = torch.zeros(3, 8)
    z[1] = torch.nan
    for refused in (lambda: kept_entries(z), lambda: rug.estimator(0.1, z, erasures=True)(z)):
        with pytest.raises(ValueError, match=r"z has a code whose entries are all missing; allowed"):
            refused()
