import mujoco
import numpy as np
import pytest

from persianrug.robots.contacts import ContactForces, Touches
from persianrug.robots.pressing import SOFT, STIFF, Pressing, Softness
from persianrug.robots.taxels import taxel_layout
from tests.robots.helpers import PATCHES, world


@pytest.fixture(scope="module")
def model():
    return world()[0]


@pytest.fixture(scope="module")
def layout(model):
    return taxel_layout(model, PATCHES)


def touches(patch, place, outward, force):
    outward = np.asarray(outward, dtype=float) / np.linalg.norm(outward)
    force = np.asarray(force, dtype=float)
    return Touches(
        np.array([patch]), np.array([place], dtype=float), outward[None], force[None],
        np.array([-(outward * force).sum()]),
    )  # fmt: skip


def net(layout, frame):
    return np.einsum("ta,tax->x", frame, layout.directions)


@pytest.mark.parametrize("softness", [STIFF, SOFT])
def test_forces_are_conserved(model, layout, softness):
    data = mujoco.MjData(model)
    forces, pressing = ContactForces(model, PATCHES), Pressing(layout, PATCHES, softness)
    pressed = 0
    for _ in range(60):
        mujoco.mj_step(model, data, 10)
        found = forces.touches(data)
        frame = pressing.frame(found)
        for index in range(len(PATCHES)):
            here = layout.of(PATCHES[index].name)
            wanted = found.force[found.patch == index].sum(axis=0)
            got = np.einsum("ta,tax->x", frame[here], layout.directions[here])
            np.testing.assert_allclose(got, wanted, atol=1e-6 * max(1.0, np.abs(wanted).max()))
            pressed += bool(np.abs(wanted).max() > 1)
    assert pressed > 40


def test_a_contact_covers_the_radius_that_it_says(layout):
    place = np.array([0.1, 0.08, -0.12])
    frame = Pressing(layout, PATCHES, STIFF).frame(touches(0, place, [0, 0, -1], [0, 0, 300]))
    radius = np.sqrt((0.75 * 300 * 0.02 / 1e6) ** (2 / 3) + 0.004**2)
    along = np.linalg.norm((layout.position - place)[:, :2], axis=1)
    near = (layout.patch == 0) & (layout.normal[:, 2] < -0.3) & (along < radius)
    np.testing.assert_array_equal(frame.any(axis=1), near)
    assert near.sum() >= 4
    # More where it is nearer.
    sizes = np.linalg.norm(frame[near], axis=1)
    np.testing.assert_allclose(sizes / sizes.max(), np.sqrt(1 - (along[near] / radius) ** 2)
                               / np.sqrt(1 - (along[near].min() / radius) ** 2), atol=1e-5)  # fmt: skip


def test_a_soft_skin_is_touched_on_more_taxels(layout):
    touch = touches(0, [0.1, 0.08, -0.12], [0, 0, -1], [0, 0, 50])
    stiff, soft = ((Pressing(layout, PATCHES, kind).frame(touch) != 0).any(axis=1).sum() for kind in (STIFF, SOFT))
    assert soft > 2 * stiff


def test_a_light_contact_is_felt_by_several_taxels(layout):
    hard = Pressing(layout, PATCHES, Softness(1e12, 1e-6))
    random = np.random.default_rng(0)
    for x, y in random.uniform([-0.12, -0.07], [0.12, 0.07], (100, 2)):
        frame = hard.frame(touches(2, [x, y, -0.05], [0, 0, -1], [1, 2, 30]))
        assert 2 <= frame.any(axis=1).sum() <= 9
        np.testing.assert_allclose(net(layout, frame), [1, 2, 30], atol=1e-4)


def test_a_contact_far_from_all_taxels_is_borne_by_the_nearest(layout):
    pressing = Pressing(layout, PATCHES, STIFF)
    # Beside the ball, and within it.
    for place, nearest in (([0.1, 0.08, -0.17], 2), ([0.1, 0.08, -0.09], None)):
        frame = pressing.frame(touches(0, place, [0, 0, -1], [0, 0, 5]))
        (taxel,) = np.flatnonzero(frame.any(axis=1))
        assert layout.patch[taxel] == 0
        np.testing.assert_allclose(net(layout, frame), [0, 0, 5], atol=1e-5)
        if nearest is not None:
            assert layout.normal[taxel, 2] < -0.9


def test_only_taxels_that_face_a_contact_feel_it(layout):
    touch = touches(0, [0.1, 0.08, -0.12], [0, 0, -1], [0, 0, 9])
    frame = Pressing(layout, PATCHES, Softness(1e3, 0.1)).frame(touch)
    assert (layout.normal[frame.any(axis=1), 2] < -0.19).all()


def test_nothing_touches_nothing(layout):
    assert not Pressing(layout, PATCHES).frame(ContactForces.none()).any()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda layout: Pressing(layout, PATCHES[:2]), "patches are left, right"),
        (lambda layout: Pressing(layout.without_shear(), PATCHES), "no tangents"),
        (lambda layout: Softness(0.0, 0.1), "modulus is 0"),
        (lambda layout: Softness(1.0, -0.1), "blur is -0.1"),
    ],
)
def test_mistakes_are_told(layout, make, said):
    with pytest.raises(ValueError, match=said):
        make(layout)
