"""The iteration between code and posterior: what it recovers, what it keeps, and when it says that it failed."""

import numpy as np
import pytest

from persianrug.skin import SignedHadamard
from persianrug.skin.touch import CodeLook, FreshLook, Prior, Touched, TouchFilter

N, AXES = 512, 3


@pytest.fixture
def prior():
    return Prior(np.full(N, 0.02), np.tile([2.0, 0, 0], (N, 1)), np.tile([2.0, 1, 1], (N, 1)), leave=0.05)


@pytest.fixture
def reader(prior):
    return TouchFilter(prior, N * AXES)


def touched(rng, count=10):
    x = np.zeros((N, AXES), np.float32)
    on = rng.permutation(N)[:count]
    x[on] = [2, 0, 0] + rng.standard_normal((count, AXES)) * [1.4, 1, 1]
    return x


def look(x, k, noise=0.0, rng=None, seed=0):
    rows = SignedHadamard(x.size, seed).rows(k)
    z = rows.forward(x.ravel())
    if noise:
        z += np.float32(noise) * rng.standard_normal(k, dtype=np.float32)
    return CodeLook(z, rows, noise**2)


def off(found, x):
    return float(np.linalg.norm(found.x - x) / np.linalg.norm(x))


def test_a_frame_is_recovered_and_explained(reader, rng):
    for _ in range(10):
        x = touched(rng)
        found = reader.read(look(x, 192), None)
        assert off(found, x) < 3e-3
        assert found.explained
        assert (found.active > 0.5).tolist() == (x != 0).any(axis=1).tolist()
        assert found.doubt == pytest.approx(found.variance.sum(), rel=1e-4)
        assert sorted(found.touched.places) == sorted(np.flatnonzero(found.active > 1e-4))


def test_a_code_that_is_too_short_is_not_explained(reader, rng):
    for _ in range(10):
        x = touched(rng, 60)
        found = reader.read(look(x, 96), None)
        assert off(found, x) > 0.2
        assert not found.explained


def test_the_last_posterior_reads_a_code_that_alone_is_too_short(reader, rng):
    x = touched(rng, 40)
    before = reader.read(look(x, 768), None).touched
    moved = x * (1 + 0.02 * rng.standard_normal((N, 1), dtype=np.float32))
    short = look(moved, 110)
    assert off(reader.read(short, None), moved) > 0.1
    found = reader.step(short, before)
    assert off(found, moved) < 0.02
    # So few entries for so many numbers cannot prove it.
    assert not found.explained
    assert reader.step(look(moved, 256), before).explained


def test_what_misleads_is_read_anew(reader, rng):
    before = reader.read(look(touched(rng), 256), None).touched
    x = touched(rng)
    found = reader.step(look(x, 224), before)
    assert found.explained
    assert off(found, x) < 3e-3


def test_noise_leaves_what_it_must(reader, rng):
    """The error is about that of an oracle that knows what is touched, and the doubt is about the error."""
    lost, doubt = [], []
    for _ in range(20):
        x = touched(rng)
        found = reader.read(look(x, 256, 0.05, rng), None)
        assert found.explained
        lost.append(float(np.square(found.x - x).sum()))
        doubt.append(found.doubt)
    share = 30 / 256
    oracle = 0.05**2 * 30 * N * AXES / 256 / (1 - share)
    assert np.mean(lost) < 1.6 * oracle
    assert np.mean(doubt) == pytest.approx(np.mean(lost), rel=0.3)


def test_memory_averages_the_noise_of_what_does_not_move(reader, rng):
    x = touched(rng)
    found, errors = None, []
    for k in range(12):
        found = reader.step(look(x, 256, 0.05, rng, seed=k), found and found.touched)
        errors.append(off(found, x))
    assert np.mean(errors[6:]) < 0.6 * errors[0]


def test_the_same_code_gives_the_same_bits_whatever_was_read_before(reader, prior, rng):
    x = touched(rng)
    first = reader.read(look(x, 192), None)
    other = reader.step(look(touched(rng), 192), first.touched)
    for filter_ in (reader, TouchFilter(prior, N * AXES)):
        again = filter_.read(look(x, 192), None)
        for name in ("x", "variance", "active"):
            assert getattr(again, name).tobytes() == getattr(first, name).tobytes()
        assert filter_.step(look(x, 192), other.touched).x.tobytes() == reader.step(
            look(x, 192), other.touched).x.tobytes()  # fmt: skip


def test_what_is_expected_without_a_code(reader, prior, rng):
    found = reader.expected(None)
    assert found.x == pytest.approx(prior.p[:, None] * prior.mean)
    assert not found.explained
    before = reader.read(look(touched(rng), 192), None).touched
    near, far = reader.expected(before, 1), reader.expected(before, 20)
    place = before.places[before.p.argmax()]
    assert near.active[place] == pytest.approx(0.95 * before.p.max(), rel=1e-4)
    assert far.active[place] == pytest.approx(0.95**20 * before.p.max(), rel=1e-4)
    assert near.doubt < far.doubt
    # What is not known before has the variance of a mixture.
    x = np.zeros((4000, AXES))
    on = rng.random(4000) < prior.p[0]
    x[on] = prior.mean[0] + np.sqrt(prior.variance[0]) * rng.standard_normal((on.sum(), AXES))
    assert found.variance[0] == pytest.approx(x.var(axis=0), rel=0.4)


def test_what_is_expected_is_in_the_way_of_a_mixtures_moments(reader):
    before = Touched(np.array([3]), np.array([0.6], np.float32), np.full((1, 3), 2, np.float32),
                     np.full((1, 3), 0.5, np.float32))  # fmt: skip
    found = reader.expected(before, 1)
    p = 0.6 * 0.95
    step = 0.05**2 + 0.02**2 * 12
    assert found.x[3] == pytest.approx(3 * [2 * p])
    assert found.variance[3] == pytest.approx(3 * [p * (0.5 + step + 4) - (2 * p) ** 2])


def test_nothing_is_read_as_nothing(reader, rng):
    x = np.zeros((N, AXES), np.float32)
    for noise in (0.0, 0.03):
        found = reader.read(look(x, 96, noise, rng), None)
        assert found.explained
        assert np.abs(found.x).max() < 0.06
        assert (found.active < 0.5).all()


def test_a_code_of_one_entry_is_no_trouble(reader, rng):
    for before in (None, reader.read(look(touched(rng), 192), None).touched):
        found = reader.step(look(touched(rng), 1), before)
        assert np.isfinite(found.x).all()
        assert np.isfinite(found.variance).all()


def test_a_fresh_look_is_what_a_code_gives_on_average(rng):
    """The energy that is left, and the noise about the numbers, of a code and in state evolution."""
    x = touched(rng)
    estimate = (0.7 * x).ravel()
    k, noise = 256, 0.1
    ratio = k / x.size
    left, spread = [], []
    fresh = FreshLook(x.ravel(), x.size, k, noise**2, 0.0, rng)
    variance = (fresh.left(estimate) - noise**2) * (1 - ratio) / ratio + noise**2 / ratio
    assert np.var(fresh.numbers(estimate, variance) - x.ravel()) == pytest.approx(variance, rel=0.1)
    for seed in range(40):
        code = look(x, k, noise, rng, seed)
        left.append(code.left(estimate))
        spread.append(np.square(code.numbers(estimate, variance) - x.ravel()).mean())
    assert np.mean(left) == pytest.approx(fresh.left(estimate), rel=0.05)
    assert np.mean(spread) == pytest.approx(variance, rel=0.05)
    assert code.energy == pytest.approx(fresh.energy, rel=0.3)
