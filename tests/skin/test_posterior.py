"""The posterior of touched taxels against the mixture in float64, quadrature, and a profile's source."""

import numpy as np
import pytest
import torch

from persianrug.skin import SkinProfile
from persianrug.skin.posterior import posterior


def called(y, s2, log_odds, mean, variance, slot, stay, tau):
    """The posterior's outputs by name; stay: odds (k,), mean, variance, steps (k, g)."""
    n, g = y.shape
    f = np.float32
    out = {name: np.full((n, g), np.nan, f) for name in ("x", "doubt", "on_mean", "on_variance")}
    active, room, wide = (np.full(n, np.nan, f) for _ in range(3))
    total, moved = posterior(
        y.astype(f), f(s2), log_odds.astype(f), mean.astype(f), variance.astype(f), slot.astype(np.int32),
        *(part.astype(f) for part in stay), f(tau), out["x"], out["doubt"], active, out["on_mean"],
        out["on_variance"], room, wide, wide.view(np.int32),
    )  # fmt: skip
    return out | {"active": active, "total": total, "tau": moved}


def normal(y, mean, variance):
    return np.exp(-((y - mean) ** 2) / variance / 2) / np.sqrt(2 * np.pi * variance)


def mixture(y, s2, log_odds, mean, variance, slot, stay, tau):
    """The same in float64, from likelihoods and not from their logarithms."""
    n, g = y.shape
    there = slot >= 0
    odds, centre, spread, steps = (np.zeros(n), *(np.ones((n, g)) for _ in range(3)))
    odds[there] = np.exp(stay[0][slot[there]])
    for full, part in zip((centre, spread, steps), stay[1:], strict=True):
        full[there] = part[slot[there]]
    spread = spread + tau * steps
    off = normal(y, 0, s2).prod(1)
    new = np.exp(log_odds) * normal(y, mean, variance + s2).prod(1)
    old = odds * normal(y, centre, spread + s2).prod(1)
    all_three = off + new + old
    new, old = new / all_three, old / all_three
    of_new = mean + variance / (variance + s2) * (y - mean), variance * s2 / (variance + s2)
    of_old = centre + spread / (spread + s2) * (y - centre), spread * s2 / (spread + s2)
    p = new + old
    first = new[:, None] * of_new[0] + old[:, None] * of_old[0]
    second = new[:, None] * (of_new[0] ** 2 + of_new[1]) + old[:, None] * (of_old[0] ** 2 + of_old[1])
    d2 = (tau * steps / (spread + s2) * (y - centre)) ** 2 + tau * steps * (spread - tau * steps + s2) / (
        spread + s2
    )
    return {
        "x": first, "doubt": second - first**2, "active": p, "on_mean": first / p[:, None],
        "on_variance": second / p[:, None] - (first / p[:, None]) ** 2,
        "total": (second - first**2).sum(), "tau": (old[:, None] * d2 / steps).sum() / (g * old.sum()),
    }  # fmt: skip


def drawn(g, rng, n=400, k=120):
    """Looks at taxels of each kind, in every state."""
    s2 = 0.04
    mean, variance = rng.normal(0, 2, (n, g)), rng.uniform(0.1, 9, (n, g))
    slot = np.full(n, -1)
    slot[rng.permutation(n)[:k]] = np.arange(k)
    stay = (
        rng.normal(2, 2, k),
        rng.normal(0, 2, (k, g)),
        rng.uniform(0.001, 0.1, (k, g)),
        rng.uniform(0.01, 1, (k, g)),
    )
    x = mean + np.sqrt(variance) * rng.standard_normal((n, g))
    state = rng.integers(0, 3, n)
    x[state == 0] = 0
    old = (state == 2) & (slot >= 0)
    x[old] = stay[1][slot[old]] + np.sqrt(stay[2] + stay[3])[slot[old]] * rng.standard_normal((old.sum(), g))
    y = x + np.sqrt(s2) * rng.standard_normal((n, g))
    return y, s2, rng.normal(-4, 1, n), mean, variance, slot, stay, 1.3


@pytest.mark.parametrize("g", [1, 3])
def test_it_is_the_mixture(g, rng):
    arguments = drawn(g, rng)
    found, true = called(*arguments), mixture(*arguments)
    # Taxels at odds of less than exp(-9) are taken to be off.
    told = true["active"] > 1e-3
    assert told.sum() > 100
    assert (found["active"][~told] < 1.1e-3).all()
    for name in ("x", "doubt", "active"):
        assert found[name][told] == pytest.approx(true[name][told], rel=3e-3, abs=3e-4), name
    sure = true["active"] > 0.01
    assert found["on_mean"][sure] == pytest.approx(true["on_mean"][sure], rel=3e-3, abs=1e-3)
    assert found["on_variance"][sure] == pytest.approx(true["on_variance"][sure], rel=1e-2, abs=1e-3)
    assert found["total"] == pytest.approx(true["total"], rel=1e-3)
    assert found["total"] == pytest.approx(found["doubt"].sum(dtype=float), rel=1e-5)
    assert found["tau"] == pytest.approx(true["tau"], rel=1e-3)


def test_the_mixture_is_what_quadrature_says(rng):
    """Mean, variance and step of one taxel, by sums over a grid of where it was and how far it moved."""
    y, s2, log_odds, stay_odds = 1.7, 0.09, -2.0, 1.0
    mean, variance, m, v, w, tau = 1.0, 4.0, 1.2, 0.05, 0.3, 0.7
    x = np.linspace(-12, 14, 4001)
    u = np.linspace(-2, 4.4, 801)[:, None]
    d = np.linspace(-4, 4, 1601)
    new = np.exp(log_odds) * normal(y, x, s2) * normal(x, mean, variance) * (x[1] - x[0])
    old = np.exp(stay_odds) * normal(u, m, v) * normal(d, 0, tau * w) * normal(y, u + d, s2)
    old *= (u[1] - u[0]) * (d[1] - d[0])
    total = normal(y, 0, s2) + new.sum() + old.sum()
    first = ((new * x).sum() + (old * (u + d)).sum()) / total
    second = ((new * x**2).sum() + (old * (u + d) ** 2).sum()) / total
    step = (old * d**2).sum() / old.sum() / w
    one = np.array
    arguments = (
        one([[y]]), s2, one([log_odds]), one([[mean]]), one([[variance]]), one([0]),
        (one([stay_odds]), one([[m]]), one([[v]]), one([[w]])), tau,
    )  # fmt: skip
    for found in (called(*arguments), mixture(*arguments)):
        assert found["active"][0] == pytest.approx((new.sum() + old.sum()) / total, rel=1e-5)
        assert found["x"][0, 0] == pytest.approx(first, rel=1e-5)
        assert found["doubt"][0, 0] == pytest.approx(second - first**2, rel=1e-4)
        assert found["tau"] == pytest.approx(step, rel=1e-4)


def test_steps_of_em_find_how_far_touches_moved(rng):
    k, s2, tau = 4000, 0.02, 3.0
    m, v, w = rng.normal(3, 1, (k, 3)), np.full((k, 3), 0.01), rng.uniform(0.02, 0.2, (k, 3))
    y = m + np.sqrt(v + tau * w + s2) * rng.standard_normal((k, 3))
    none = np.full(k, -20.0), np.zeros((k, 3)), np.ones((k, 3))
    guess = 0.1
    for _ in range(60):
        guess = called(y, s2, *none, np.arange(k), (np.full(k, 5.0), m, v, w), guess)["tau"]
    assert guess == pytest.approx(tau, rel=0.06)


def test_tau_is_0_where_nothing_was_touched(rng):
    y, s2, log_odds, mean, variance, slot, stay, tau = drawn(3, rng)
    assert called(y, s2, log_odds, mean, variance, slot * 0 - 1, stay, tau)["tau"] == 0


def test_numbers_far_out_give_no_nan():
    y = np.array([[1e4, 0, 0], [-1e4, 1e4, 1e4], [0, 0, 0], [1e-20, 0, 0]])
    n = len(y)
    stay = np.array([5.0]), np.ones((1, 3)), np.zeros((1, 3)), np.ones((1, 3))
    found = called(
        y, 1e-9, np.full(n, -12.0), np.zeros((n, 3)), np.ones((n, 3)), np.array([-1, 0, -1, -1]), stay, 1e-3
    )
    for name, value in found.items():
        # Of taxels that are off nothing is said of what they would be.
        assert np.isfinite(value[:2] if name.startswith("on") else value).all(), name
    assert found["active"].tolist() == pytest.approx([1, 1, 0, 0])
    assert found["active"].max() <= 1
    assert min(found["doubt"].min(), found["on_variance"][:2].min()) >= 0


@pytest.mark.parametrize("axes", [1, 3])
def test_without_memory_it_is_the_profiles_source(axes, layout, frames, rng):
    if axes == 1:
        rows = np.stack([frame[::3] for frame in frames[::10]])
        profile = SkinProfile.fit(type(frames)(rows), layout.without_shear())
    else:
        profile = SkinProfile.fit(frames[::5], layout)
    prior = profile.prior(np.arange(layout.n_taxels))
    x = frames[200].reshape(layout.n_taxels, 3)[:, :axes]
    nothing = np.empty(0), *(np.empty((0, axes)) for _ in range(3))
    for sigma in (0.05, 0.3, 2.0):
        y = (x + sigma * rng.standard_normal(x.shape)).astype(np.float32)
        found = called(
            y, sigma**2, prior.odds, prior.mean, prior.variance, np.full(len(y), -1), nothing, 1.0
        )  # fmt: skip
        flat = torch.from_numpy(y.astype(np.float64).ravel())
        mean, doubt = profile.source().denoise(flat, torch.full_like(flat, sigma))
        mean, doubt = (part.numpy().reshape(x.shape) for part in (mean, doubt))
        told = found["active"] > 0
        assert found["x"][told] == pytest.approx(mean[told], rel=2e-3, abs=2e-3)
        assert found["doubt"][told] == pytest.approx(doubt[told], rel=1e-2, abs=2e-3)
        # What is taken to be off is, and adds little doubt.
        assert np.abs(mean[~told]).max() < 0.01
        assert found["total"] == pytest.approx(doubt.sum(), rel=0.02)
