"""A person: comes when something is offered, and does what its manner says."""

from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from persianrug.robots import objects
from persianrug.robots.person import MANNERS, Manner, Person

CAN = np.array([0.0, 0.0, 0.8])
REST = np.array([0.5, 0.2, 0.9])
DT = 0.004


class Offered:
    """A can that is held where it is, until it is let go, and a person."""

    def __init__(self, manner):
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.002
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        # As in scenes of robots: fingers do not creep.
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        spec.option.impratio = 10
        objects.add_can(spec, *CAN, 0.1)
        objects.add_person(spec)
        held = spec.add_equality(type=mujoco.mjtEq.mjEQ_WELD, name1="can", objtype=mujoco.mjtObj.mjOBJ_BODY)
        held.data[:11] = 0, 0, 0, *-CAN, 1, 0, 0, 0, 1
        held.solref, held.solimp = [0.004, 1], [0.999, 0.9999, 0.001, 0.5, 2]
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.person = Person(self.model, manner, "can", REST)
        self.data.qpos[self.person.places] = REST
        self.body = SimpleNamespace(offering=True)
        self.can = self.model.body("can").id
        self.felt = []
        mujoco.mj_forward(self.model, self.data)

    def run(self, seconds, let_go_after=None):
        """Go on; the can is let go so long after the person began to pull."""
        end = self.data.time + seconds - 1e-9
        while self.data.time < end:
            data, person = self.data, self.person
            person.act(data, self.body)
            if let_go_after is not None and person.pulled is not None:
                data.eq_active[0] = data.time < person.pulled + let_go_after
            mujoco.mj_step(self.model, data, 2)
            self.felt.append((data.time, *self.force()))

    def force(self):
        """Of the person on the can (3,)."""
        total = np.zeros(3)
        for number, contact in enumerate(self.data.contact):
            force = np.zeros(6)
            mujoco.mj_contactForce(self.model, self.data, number, force)
            sign = 1 if self.model.geom_bodyid[contact.geom2] == self.can else -1
            total += sign * contact.frame.reshape(3, 3).T @ force[:3]
        return total

    def force_at(self, begin, end):
        """The mean force (3,) of the person on the can in some time."""
        felt = np.array(self.felt)
        return felt[(felt[:, 0] > begin) & (felt[:, 0] < end), 1:].mean(axis=0)


def test_takes_what_is_let_go():
    world = Offered(Manner(force=15.0))
    world.run(8.0, let_go_after=0.5)
    person = world.person
    assert person.has
    assert person.gripped == pytest.approx(2.7, abs=0.05)
    assert person.pulled - person.gripped == pytest.approx(1.0, abs=0.01)
    assert world.data.xpos[world.can][0] > 0.2


def test_pulls_with_its_force_and_gives_up():
    world = Offered(Manner(force=5.0))
    world.run(8.5)
    pulled = world.person.pulled
    assert world.force_at(pulled + 0.5, pulled + 3.5)[0] == pytest.approx(5.0, abs=1.0)
    assert world.data.ctrl[world.person.fingers] == pytest.approx([-3, -3])
    world.run(2.0)
    assert not world.person.has
    np.testing.assert_allclose(world.data.xpos[world.can], CAN, atol=0.01)


def test_before_it_is_offered_it_waits():
    world = Offered(Manner())
    world.body.offering = False
    world.run(3.0)
    assert world.person.gripped is None
    np.testing.assert_allclose(world.data.qpos[world.person.places], REST, atol=0.01)


def test_never_comes():
    world = Offered(Manner("never"))
    world.run(8.0)
    assert (world.person.gripped, world.person.pulled, world.person.has) == (None, None, False)
    np.testing.assert_allclose(world.data.qpos[world.person.places], REST, atol=0.01)


def test_late_and_early():
    late, early = Offered(Manner("late")), Offered(Manner("early"))
    late.run(9.0)
    early.run(3.0)
    assert late.person.gripped == pytest.approx(8.7, abs=0.05)
    assert early.person.pulled - early.person.gripped == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize(("kind", "axis", "sign"), [("pushes", 0, -1), ("lifts", 2, 1)])
def test_pushes_or_lifts_before_it_pulls(kind, axis, sign):
    world = Offered(Manner(kind, force=12.0))
    world.run(6.5)
    gripped, pulled = world.person.gripped, world.person.pulled
    assert pulled - gripped == pytest.approx(3.0, abs=0.02)
    idle = world.force_at(gripped + 0.6, gripped + 0.95)
    pressed = world.force_at(gripped + 1.8, gripped + 2.2) - idle
    # Fingers that grip give way upwards until they are at their ends.
    assert 12.5 > sign * pressed[axis] > (10 if kind == "pushes" else 6)
    pull = world.force_at(pulled + 0.3, pulled + 0.7) - idle
    assert pull[0] == pytest.approx(12.0, abs=2.5)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"kind": "steals"}, r"kind is 'steals'; allowed: takes, late, early, pushes, lifts, never"),
        ({"force": 0}, r"force is 0; allowed: a finite number > 0"),
        ({"force": float("nan")}, r"force is nan; allowed: a finite number > 0"),
        ({"idle": -1}, r"idle is -1; allowed: a finite number >= 0"),
        ({"rise": 0}, r"rise is 0; allowed: a finite number > 0"),
    ],
)
def test_bad_manners(arguments, why):
    with pytest.raises(ValueError, match=why):
        Manner(**arguments)
    assert len(MANNERS) == 6
