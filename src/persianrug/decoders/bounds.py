"""How the ReLU law scales where features are rare: provable bounds, and their leading form.

The law (arXiv 2410.12101) is the least risk over gain and bias of x_hat = max(gain y + bias, 0), y = x + sigma z.
Here amplitudes u are uniform on [0, 1]. With gain a, threshold t = -bias / gain = c sigma, w = u - t + sigma z,
let

    m1 = E u = 1/2,  m2 = E u^2 = 1/3,  kappa = Var u / m2 = 1/4,  Rk(c) = E max(c + z, 0)^k,
    f(c) = kappa c^2 + (1 - p) / p R2(-c),
    B = m2 - t m1,  D = m2 - 2 t m1 + t^2 + sigma^2 (1 + (1 - p) / p R2(-c)),  G = sigma^3 R3(c) / 3.

If the output of active features were a w, not its positive part, the risk would be p (m2 - 2 a B + a^2 D). As
m2 D - B^2 = m2 sigma^2 (1 + f), its least value over a, at a = B / D, is

    U(c) = p sigma^2 (1 + f(c)) m2 / D.

*Upper.* L <= U(c) for every c with B > 0: as u >= 0, |u - max(a w, 0)| <= |u - a w|. And L <= p m2, at a = 0. With
s = a t, the risk above is a convex function of (a, s), made of squares and E max(a sigma z - s, 0)^2. So
{U <= const} is an interval of c = s / (a sigma), and a search finds no merely local minimum.

*Lower.* Let a > 0. Where w < 0 the loss is u^2, less than (u - a w)^2 by a^2 w^2 + 2 a u |w|. Since u has density
at most 1, E max(-w, 0)^2 <= E int_0^inf max(t - sigma z - u, 0)^2 du = G, and E u max(-w, 0) <= G / 2 likewise.
Hence

    risk >= p (m2 - 2 a (B + G / 2) + a^2 (D - G))
         >= p (m2 sigma^2 (1 + f) - G (m2 + B + G / 4)) / (D - G)      if D > G.

That is the risk itself but for t + sigma z > 1, for terms like exp(-(1 / sigma - c)^2 / 2). It fails for t near 1.
There, as nothing is put out where u < t and z < 0, risk >= p E[u^2; u < t] / 2 = p min(t, 1)^3 / 6. Now let
a <= 0. Then x_hat does not rise with y, so Cov(x, x_hat) <= 0 and risk >= Var(x - x_hat) >= Var x, which is
the limit of the bound for c -> -inf.

*Scaling.* Let p and sigma fall together, sigma^2 = v (1 - ratio) / ratio. By the cubic, t -> 0 wherever the lower
bound is near its minimum. There D = m2 (1 + O(t)) and G = O(t) sigma^2 (1 + f), so both bounds are
p sigma^2 (1 + min f) (1 + O(c sigma)) with c the minimum of f, c^2 ~ 2 log(1 / p). They differ by
2 G / (sigma^2 (1 + f)) of their value, which tends to 8/3 c sigma, and so to 0 like sqrt(p log(1 / p)).

At gain 1 the threshold would cost its whole square t^2. The best gain, about 1 + t m1 / m2, leaves
E (t - t u m1 / m2)^2 = kappa t^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import lambertw, ndtr

from persianrug._support import checks
from persianrug._support.quadrature import normal_pdf, rectified_second
from persianrug.encoders import noise_level
from persianrug.sources import Source, SparseUniform

Floats = NDArray[np.float64]

_M1, _M2, _KAPPA = 1 / 2, 1 / 3, 1 / 4


def relu_bounds(source: Source, sigma: float) -> tuple[float, float]:
    """Bounds of the least risk of ReLU(gain y + bias), over gain and bias, on y = x + sigma z.

    Proven at the head of this module, but for rounding and the search over one threshold. On a rug of any ratio
    they tighten like sqrt(p log(1 / p)): at ratio 0.25, upper / lower is 1.47 at p = 1e-2, 1.08 at 1e-4, 1.011 at
    1e-6. While sigma is below a tenth of the scale, the lower bound is the law to 1e-6 or better. Where sigma is
    of the order of the scale it is loose, and may be 0.

    Parameters
    ----------
    source : SparseUniform
        Of features that are alike.
    sigma : float > 0
        Standard deviation of the noise, as `noise_level` gives it for a rug.

    Returns
    -------
    lower, upper : float

    Raises
    ------
    ValueError
        If the source is another one, or sigma is not from 1e-30 to 1e30.
    """
    if not isinstance(source, SparseUniform) or source.n_sparse is not None:
        raise ValueError(f"source is {checks.shown(source)}; allowed: SparseUniform of features that are alike")
    sigma = checks.scale("sigma", sigma) / source.scale
    p, unit = source.p, source.scale**2
    variance = source.variance / unit

    def terms(c: Floats) -> tuple[Floats, Floats, Floats]:
        t, off = c * sigma, (1 - p) / p * _rectified_second(-c)
        numerator = _M2 * sigma**2 * (1 + _KAPPA * c * c + off)
        return numerator, _M2 - t * _M1, _KAPPA * _M2 + (_M1 - t) ** 2 + sigma**2 * (1 + off)

    def upper(c: Floats) -> Floats:
        numerator, b, d = terms(c)
        return p * np.where(b > 0, numerator / d, _M2)

    def lower(c: Floats) -> Floats:
        numerator, b, d = terms(c)
        g = sigma**3 * _rectified_third(c) / 3
        numerator -= g * (_M2 + b + g / 4)
        risk = np.divide(numerator, d - g, out=np.zeros_like(c), where=(d > g) & (c * sigma < 1))
        return p * np.maximum(risk, np.clip(c * sigma, 0, 1) ** 3 / 6)

    # The linear law has the threshold -sigma^2 m / v. Below both that and -10 sigma, G is nil, and the bounds only
    # rise as t falls further. From t = 1 on they are constant.
    low, high = -10 - sigma * p * _M1 / variance, 10 + 1 / sigma
    return unit * _least(lower, low, high), unit * _least(upper, low, high)


def relu_scaling(p: float, ratio: float) -> float:
    """Leading form of the ReLU law of a rug as p -> 0, for features uniform on [0, 1].

    With sigma^2 = v (1 - ratio) / ratio and R2(m) = E max(m + z, 0)^2,

        L ~ p sigma^2 (1 + c^2 / 4 + (1 - p) / p R2(-c)),      c^2 = 3 W((2 pi p^2 / 16)^(-1/3) / 3),

    with Lambert's function W: c solves phi(c) = p c^3 / 4, where the sum is least for large c. So c^2 is about 2
    log(1 / p) - 3 log log(1 / p), and the last term tends to 1/2. L divided by it is 1 + O(c sigma), up to a term
    O(c^-6) since c is not quite the minimum. At ratio 0.25 it is 1.02 at p = 1e-4 and 1.002 at 1e-6.

    Parameters
    ----------
    p : float from 1e-30 to 1
        Probability that a feature is active.
    ratio : float in (0, 1]
        n_dense / n_sparse.

    Raises
    ------
    ValueError
        If p or ratio is out of its range.
    """
    source = SparseUniform(checks.rate("p", p))
    sigma = noise_level(source.variance, ratio)
    c = math.sqrt(3 * lambertw((math.sqrt(2 * math.pi) * _KAPPA * p) ** (-2 / 3) / 3).real)
    off = (1 - p) / p * float(_rectified_second(np.array(-c)))
    return p * sigma**2 * (1 + _KAPPA * c * c + off)


def _rectified_second(c: Floats) -> Floats:
    """R2(c) = E max(c + z, 0)^2."""
    return rectified_second(c, np.ones_like(c))


def _rectified_third(c: Floats) -> Floats:
    """R3(c) = E max(c + z, 0)^3."""
    return (c**3 + 3 * c) * ndtr(c) + (c * c + 2) * normal_pdf(c)


def _least(bound: Callable[[Floats], Floats], low: float, high: float) -> float:
    """The least value of bound(c) for c from low to high, on a grid that closes in on it."""
    for _ in range(3):
        c = np.sinh(np.linspace(math.asinh(low), math.asinh(high), 4001))
        values = bound(c)
        best = int(np.argmin(values))
        low, high = c[max(best - 1, 0)], c[min(best + 1, len(c) - 1)]
    return float(values.min())
