import mujoco
import numpy as np
import pytest

from persianrug.robots.contacts import ContactForces, TrueContacts
from tests.robots.helpers import PATCHES, world


def settled(seconds=1.5):
    model, data = world()
    mujoco.mj_step(model, data, round(seconds / model.opt.timestep))
    return model, data


def test_contacts_bear_the_weight():
    model, data = settled()
    reading = TrueContacts(model, PATCHES).sense(data)
    weight = model.body_mass.sum() * 9.81
    body = [model.body(patch.body).id for patch in PATCHES]
    world_force = np.einsum("pij,pj->i", data.xmat[body].reshape(-1, 3, 3), reading.force)
    np.testing.assert_allclose(world_force, [0, 0, weight], atol=0.02 * weight)
    assert reading.pressing.sum() == pytest.approx(weight, rel=0.02)
    assert reading.time == data.time
    assert reading.valid.all()


def test_the_centre_is_on_the_floor_where_something_presses():
    model, data = settled()
    reading = TrueContacts(model, PATCHES).sense(data)
    pressed = reading.pressing > 0
    assert pressed[:2].all()
    assert np.isnan(reading.centre[~pressed]).all()
    for index in np.flatnonzero(pressed):
        body = model.body(PATCHES[index].body).id
        place = data.xpos[body] + data.xmat[body].reshape(3, 3) @ reading.centre[index]
        assert abs(place[2]) < 2e-3


def test_nothing_is_felt_in_the_air():
    model, data = world()
    reading = TrueContacts(model, PATCHES).sense(data)
    assert not reading.pressing.any()
    assert not reading.force.any()
    assert np.isnan(reading.centre).all()


def test_touches_point_away_from_the_robot_and_press_on_it():
    model, data = settled()
    touches = ContactForces(model, PATCHES).touches(data)
    assert len(touches.patch) >= 3
    np.testing.assert_allclose(np.linalg.norm(touches.outward, axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(-(touches.outward * touches.force).sum(axis=1), touches.pressing, atol=1e-9)
    body = np.array([model.body(PATCHES[index].body).id for index in touches.patch])
    down = np.einsum("kij,kj->ki", data.xmat[body].reshape(-1, 3, 3), touches.outward)
    np.testing.assert_allclose(down, np.tile([0, 0, -1], (len(down), 1)), atol=1e-6)


def test_patches_that_press_on_each_other_both_feel_it():
    xml = """<mujoco><option gravity="0 0 -9.81"/><worldbody>
      <body name="low"><geom name="low" type="box" size=".1 .1 .1"/></body>
      <body name="high" pos="0 0 .2"><freejoint/><geom name="high" type="sphere" size=".1" mass="2"/></body>
      </worldbody></mujoco>"""
    from persianrug.robots.taxels import Patch

    model, data = world(xml)
    mujoco.mj_step(model, data, 500)
    reading = TrueContacts(model, [Patch("low", "low", 9), Patch("high", "high", 9)]).sense(data)
    np.testing.assert_allclose(reading.force[0], [0, 0, -19.62], atol=0.05)
    np.testing.assert_allclose(reading.force[1], [0, 0, 19.62], atol=0.05)


def test_mistakes_are_told():
    from persianrug.robots.taxels import Patch

    with pytest.raises(ValueError, match="body is 'leg'"):
        TrueContacts(world()[0], [Patch("p", "leg", 9)])
