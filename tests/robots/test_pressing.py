"""Forces on taxels: conserved, near the contact, and with the flaws that they should have."""

import numpy as np
import pytest

from persianrug.robots.contacts import ContactForces, TrueContacts
from persianrug.robots.pressing import SOFT, STIFF, Flaws, Pressing, Softness
from persianrug.robots.spot.spec import SPEC
from persianrug.robots.taxels import Patch, taxel_layout
from tests.robots.worlds import Standing


@pytest.fixture(scope="module")
def world():
    world = Standing()
    world.run(0.3)
    world.walk(0.4, 0.6)
    return world


@pytest.fixture(scope="module")
def layout(world):
    return taxel_layout(world.model, SPEC.patches)


@pytest.mark.parametrize("softness", [STIFF, SOFT], ids=["stiff", "soft"])
def test_forces_are_conserved(world, layout, softness):
    """The net force of each patch's taxels is that of its contacts, in every tick of a trot."""
    pressing, contacts = Pressing(layout, SPEC.patches, softness), TrueContacts(world.model, SPEC.patches)
    seen = []

    def each(world):
        touches = contacts.forces.touches(world.data)
        frame = pressing.frame(touches)
        force = np.zeros((len(layout.patches), 3))
        np.add.at(force, layout.patch, np.einsum("ta,tax->tx", frame, layout.directions))
        expected = contacts.reading(touches, 0.0).force
        assert np.abs(force - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())
        seen.append(np.abs(expected).max())

    world.run(0.3, each)
    assert max(seen) > 50


def test_a_soft_skin_spreads_wider(world, layout):
    contacts = TrueContacts(world.model, SPEC.patches)
    touched = []
    for softness in (STIFF, SOFT):
        frame = Pressing(layout, SPEC.patches, softness).frame(contacts.forces.touches(world.data))
        touched.append(np.count_nonzero(frame.any(axis=1)))
    assert 3 <= touched[0] < touched[1]


def test_nothing_touches_nothing(layout):
    assert not Pressing(layout, SPEC.patches).frame(ContactForces.none()).any()


def test_flaws_are_what_they_say():
    flaws = Flaws(2000, noise=0.05, gain=0.1, dead=0.02, seed=1)
    nothing = np.array([flaws.apply(np.zeros((2000, 3))) for _ in range(20)])
    alive = flaws.gains > 0
    assert np.count_nonzero(~alive) == 40
    assert nothing[:, alive].std() == pytest.approx(0.05, rel=0.02)
    # Dead ones read nothing, whatever presses.
    assert not flaws.apply(np.full((2000, 3), 9.0))[~alive].any()
    assert flaws.gains[alive].std() == pytest.approx(0.1, rel=0.05)
    read = flaws.without_noise(np.full((2000, 3), 2.0))
    np.testing.assert_allclose(read, 2.0 * flaws.gains[:, None] * np.ones(3))


def test_same_seed_same_flaws():
    frame = np.ones((50, 3))
    one, same, other = (Flaws(50, seed=seed).apply(frame) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_bad_input(layout):
    with pytest.raises(ValueError, match="dead is 2; allowed"):
        Flaws(10, dead=2)
    with pytest.raises(ValueError, match="noise is -1; allowed"):
        Flaws(10, noise=-1)
    with pytest.raises(ValueError, match="modulus is 0; allowed"):
        Softness(0, 0.01)
    with pytest.raises(ValueError, match="patches are p; allowed"):
        Pressing(layout, [Patch("p", "trunk", 4)])
    with pytest.raises(ValueError, match="no tangents"):
        Pressing(layout.without_shear(), SPEC.patches)
