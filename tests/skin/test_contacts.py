"""Contacts: forces against true ones, standard errors against noise, hysteresis, and what is not believed."""

import numpy as np
import pytest

from persianrug.skin import ContactTracker, Estimate, Layout

PATCHES = ("jaw", "finger", "fl_foot", "fr_foot", "hl_foot", "hr_foot")


def rotations(quat):
    """Matrices (k, 3, 3) of quaternions (k, 4), from a body's frame to the world's."""
    w, x, y, z = quat.astype(np.float64).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def noisy(x, deviation, rng, active=None, frame=0):
    noise = deviation * rng.standard_normal(x.shape)
    seen = np.ones(1, dtype=bool)
    active = np.ones(len(x), dtype=np.float32) if active is None else active
    variance = np.broadcast_to(np.float32(deviation**2), x.shape)
    return Estimate(frame, (x + noise).astype(np.float32), variance, active, 0.0, seen, seen)


def mat_estimate(newtons, *, explained=True, heard=True):
    """What a mat of two patches feels, (2,) newtons on the first taxel of each, of blocks of their own."""
    x = np.zeros((4, 1), dtype=np.float32)
    x[[0, 2], 0] = newtons
    explained, heard = (np.broadcast_to(value, 2).copy() for value in (explained, heard))
    return Estimate(0, x, np.zeros_like(x), (x[:, 0] != 0).astype(np.float32), 0.0, explained, heard)


@pytest.fixture
def mat():
    whole = Layout.plane(2, 2, 0.01)
    patch = np.array([0, 0, 1, 1])
    return Layout(whole.position, whole.normal, whole.area, patch, ("left", "right"), ("mat", "mat"))


def test_net_forces_are_the_true_ones(layout, frames, truth):
    """Every number of the recording, and the truth itself, is rounded to 11 bits."""
    tracker = ContactTracker(layout)
    true = {"jaw": truth["jaw_force"], "finger": truth["finger_force"]}
    true |= {name: truth["foot_force"][:, i] for i, name in enumerate(PATCHES[2:])}
    bodies = list(truth["quat_bodies"])
    turns = {
        name: rotations(truth["quat"][:, bodies.index(layout.bodies[layout.patches.index(name)])]) for name in true
    }
    for k in range(0, len(frames), 5):
        x = layout.frame(frames[k])
        found = {one.patch: one for one in tracker.update(Estimate.certain(k, x), frames.time[k])}
        for name, forces in true.items():
            world = turns[name][k] @ found[name].force
            rounding = 2**-11 * np.abs(x[layout.of(name)]).sum() + 2**-11 * np.abs(forces[k]).max() + 1e-6
            assert np.abs(world - forces[k]).max() < rounding
            # Far less than one would see: rounding errors are of all signs.
            assert np.abs(world - forces[k]).max() < 0.05
            assert found[name].valid


def test_standard_errors_are_those_of_noise(layout, frames, rng):
    x = layout.frame(frames[150])
    # Without hysteresis in the way of what is compared.
    tracker = ContactTracker(layout, friction=0.7)
    true = {one.patch: one for one in tracker.update(Estimate.certain(0, x), 0.0)}
    scores = {name: [] for name in ("pressing", "force", "centre", "slip")}
    for _ in range(300):
        for one in tracker.update(noisy(x, 0.03, rng), 0.0):
            if one.patch in PATCHES:
                for name, found in scores.items():
                    off = getattr(one, name) - getattr(true[one.patch], name)
                    found.append(off / getattr(one, f"{name}_stderr"))
    for name, found in scores.items():
        assert np.sqrt(np.square(found).mean()) == pytest.approx(1, abs=0.05), name
        # The slip is a ratio of lengths, whose mean noise shifts a little.
        assert abs(np.mean(found)) < (0.15 if name == "slip" else 0.06), name


def test_the_standard_error_of_an_area_is_that_of_which_taxels_are_touched(layout, rng):
    x = np.zeros((layout.n_taxels, 3), dtype=np.float32)
    active = rng.random(layout.n_taxels).astype(np.float32)
    told = ContactTracker(layout).update(noisy(x, 1.0, rng, active), 0.0)
    drawn = rng.random((1000, layout.n_taxels)) < active
    for i, one in enumerate(told):
        areas = drawn[:, layout.patch == i] @ layout.area[layout.patch == i].astype(np.float64)
        assert one.area == pytest.approx(areas.mean(), rel=0.02)
        assert one.area_stderr == pytest.approx(areas.std(), rel=0.1)


def test_a_press_is_felt_where_it_is():
    mat = Layout.plane(3, 4, 0.01, axes=3)
    x = np.zeros((12, 3), dtype=np.float32)
    x[5] = 3, 0.6, -0.8
    x[6] = 1, 0.2, 0
    (one,) = ContactTracker(mat, friction=0.5).update(Estimate.certain(0, x), 0.0)
    assert one.patch == "mat"
    assert one.touching
    assert one.valid
    assert one.pressing == pytest.approx(4)
    assert one.force == pytest.approx([0.8, -0.8, -4])
    assert one.centre == pytest.approx([0.0125, 0.01, 0])
    assert one.area == pytest.approx(2e-4)
    assert one.slip == pytest.approx(np.hypot(0.8, 0.8) / (0.5 * 4))
    assert one.slip_stderr == 0


def test_nothing_is_no_contact_and_has_no_centre(layout):
    x = np.zeros((layout.n_taxels, 3), dtype=np.float32)
    for one in ContactTracker(layout).update(Estimate.certain(0, x), 0.0):
        assert (one.touching, one.valid, one.pressing, one.area) == (False, True, 0, 0)
        assert np.isnan([*one.centre, *one.centre_stderr, one.slip, one.slip_stderr]).all()


def test_a_skin_of_pressure_has_no_slip(mat):
    left, right = ContactTracker(mat).update(mat_estimate([2, 0]), 0.0)
    assert left.force == pytest.approx([0, 0, -2])
    assert np.isnan(left.slip)
    assert (left.touching, right.touching) == (True, False)


def test_contacts_begin_above_on_and_end_below_off(mat):
    tracker = ContactTracker(mat, on=2.0, off=1.0)
    forces = [0, 1.9, 2.1, 1.5, 1.1, 0.9, 1.5, 2.1]
    found = [tracker.update(mat_estimate([force, 0]), 0.01 * k)[0].touching for k, force in enumerate(forces)]
    assert found == [False, False, True, True, True, False, False, True]


def test_a_patch_that_is_not_explained_is_not_believed(mat):
    tracker = ContactTracker(mat, blocks=[0, 1])
    tracker.update(mat_estimate([5, 5]), 0.0)
    left, right = tracker.update(mat_estimate([0, 0], explained=[False, True]), 0.004)
    assert (left.valid, left.touching) == (False, True)
    assert (right.valid, right.touching) == (True, False)
    left, right = tracker.update(mat_estimate([0, 0]), 0.008)
    assert (left.valid, left.touching) == (True, False)


def test_a_patch_that_is_silent_is_not_believed_after_a_while(mat):
    tracker = ContactTracker(mat, blocks=[0, 1])
    tracker.update(mat_estimate([5, 5]), 1.0)
    for k in range(1, 21):
        silent = mat_estimate([0, 0], heard=[False, True])
        left, right = tracker.update(silent if k % 2 else None, 1.0 + 0.004 * k)
        assert left.valid == (k <= 10)
        assert left.touching
        # One frame in two came.
        assert right.valid
    left, right = tracker.update(None, 1.5)
    assert not right.valid
    assert tracker.update(mat_estimate([5, 5]), 1.5)[0].valid


def test_what_came_before_anything_was_heard_is_not_believed(mat):
    assert not any(one.valid for one in ContactTracker(mat).update(None, 0.0))
    tracker = ContactTracker(mat)
    assert not any(one.valid for one in tracker.update(mat_estimate([5, 5], heard=False), 0.0))


def test_arguments_are_checked(mat, layout):
    for arguments, said in [
        ({"on": 1.0, "off": 2.0}, "off is 2.0; allowed: up to 1.0"),
        ({"on": 0.0}, "on is 0.0"),
        ({"friction": -1.0}, "friction is -1.0"),
        ({"silence": np.nan}, "silence is nan"),
        ({"blocks": [0]}, "blocks is .*; allowed: 2 integers"),
        ({"blocks": [0, -1]}, "blocks is .*; allowed: 2 integers"),
    ]:
        with pytest.raises(ValueError, match=said):
            ContactTracker(mat, **arguments)
    with pytest.raises(ValueError, match="layout is 3; allowed: a Layout"):
        ContactTracker(3)
    tracker = ContactTracker(mat, blocks=[0, 2])
    with pytest.raises(ValueError, match="estimate has 2 blocks; allowed: 3 or more"):
        tracker.update(mat_estimate([0, 0]), 0.0)
    tracker.update(None, 1.0)
    with pytest.raises(ValueError, match=r"time is 0.5 s; allowed: 1 s"):
        tracker.update(None, 0.5)
    with pytest.raises(ValueError, match="estimate is of"):
        ContactTracker(layout).update(mat_estimate([0, 0]), 0.0)


def test_estimates_are_of_one_size():
    x, seen = np.zeros((4, 3), dtype=np.float32), np.ones(1, dtype=bool)
    assert repr(Estimate.certain(3, x + 1)) == (
        "Estimate(frame 3, 4 of 4 taxels touched, expected error 0, 1 of 1 codes explained)"
    )
    for arrays, said in [
        ((x, x[:2], x[:, 0], 0.0, seen, seen), "variance has shape"),
        ((x[0], x[0], x[:, 0], 0.0, seen, seen), "allowed: both"),
        ((x, x, x[:3, 0], 0.0, seen, seen), "active has shape"),
        ((x, x, x[:, 0], 0.0, seen, np.ones(2, dtype=bool)), "explained has shape"),
    ]:
        with pytest.raises(ValueError, match=said):
            Estimate(0, *arrays)
