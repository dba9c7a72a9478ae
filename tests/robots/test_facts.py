"""What is published of robots, and what their models have of it."""

import pytest

mujoco = pytest.importorskip("mujoco")

from persianrug.robots import objects  # noqa: E402
from persianrug.robots.facts import Fact, agrees, measured  # noqa: E402
from persianrug.robots.models import read_model  # noqa: E402
from persianrug.robots.registry import ROBOTS  # noqa: E402
from persianrug.robots.scene import robot_model  # noqa: E402
from persianrug.robots.spot.spec import SPEC  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return read_model(SPEC.mjcf).compile()


EVERY = [(name, fact) for name, robot in ROBOTS.items() for fact in robot.facts]


@pytest.fixture(scope="module")
def models():
    return {name: robot_model(robot.spec) for name, robot in ROBOTS.items()}


@pytest.mark.parametrize(("name", "fact"), EVERY, ids=lambda one: getattr(one, "what", one).replace(" ", "-"))
def test_fact(models, name, fact):
    assert fact.what
    assert fact.source
    value = measured(models[name], fact)
    assert value is None or value == pytest.approx(fact.value, rel=max(fact.tolerance, 1e-9), abs=1e-9)
    assert agrees(models[name], fact)


@pytest.mark.parametrize("name", ROBOTS)
def test_names_differ(name):
    facts = ROBOTS[name].facts
    assert len({fact.what for fact in facts}) == len(facts) > 10


def test_disagrees(model):
    assert not agrees(model, Fact("motors", 20, "", "nobody", lambda model: model.nu))
    assert agrees(model, Fact("payload", 14, "kg", "somebody"))
    assert measured(model, Fact("payload", 14, "kg", "somebody")) is None


def test_legs_are_alike(model):
    """Left and right, front and hind: of the same masses, ends and motors, mirrored."""
    for part, joint in (("hip", "hx"), ("upper", "hy"), ("lower", "kn")):
        first = model.body(f"fl_{part}")
        for leg, mirror, side in (("fr", -1, 1), ("hl", 1, -1), ("hr", -1, -1)):
            body = model.body(f"{leg}_{part}")
            along = side if part == "hip" else 1
            assert body.pos == pytest.approx(first.pos * [along, mirror, 1])
            for kind, limits in (("joint", "range"), ("actuator", "ctrlrange")):
                one, other = (getattr(model, kind)(f"{name}_{joint}") for name in ("fl", leg))
                assert (getattr(one, limits) == getattr(other, limits)).all()
            assert body.mass[0] == first.mass[0]
            assert body.inertia == pytest.approx(first.inertia)
            assert body.ipos == pytest.approx(first.ipos * [1, mirror, 1])
    for leg in ("fr", "hl", "hr"):
        foot, first = model.geom(f"{leg}_foot"), model.geom("fl_foot")
        assert (foot.pos == first.pos).all()
        assert (foot.size == first.size).all()


def test_masses_are_given(model):
    """Each body has its own mass and an inertia that solids can have; geoms weigh nothing."""
    for i in range(1, model.nbody):
        a, b, c = sorted(model.body_inertia[i])
        assert model.body_mass[i] > 0
        assert a > 0
        assert c <= a + b
    assert model.body_subtreemass[0] == pytest.approx(30.0)


def test_looks_do_not_collide(model):
    """What collides is what the robot's skin is on: nothing of it collides with the robot itself."""
    for i in range(model.ngeom):
        kinds = (int(model.geom_contype[i]), int(model.geom_conaffinity[i]))
        assert kinds in {(0, 0), (1, 2)}
        assert model.geom_group[i] in (2, 3)
    for patch in SPEC.patches:
        body = model.body(patch.body).id
        touching = [i for i in range(model.ngeom) if model.geom_bodyid[i] == body and model.geom_contype[i]]
        assert touching, patch.name


@pytest.mark.parametrize("angle", [-1.04, -0.5, 0.0, 0.5, 1.04])
def test_feet_carry(model, angle):
    """Shanks do not come to the ground before feet do, up to 60 degrees from upright."""
    data = mujoco.MjData(model)
    knee = -1.42
    for leg in ("fl", "fr", "hl", "hr"):
        data.qpos[model.joint(f"{leg}_kn").qposadr[0]] = knee
        data.qpos[model.joint(f"{leg}_hy").qposadr[0]] = angle - knee
    mujoco.mj_kinematics(model, data)
    for leg in ("fl", "fr", "hl", "hr"):
        foot, shank = model.geom(f"{leg}_foot"), model.geom(f"{leg}_shank")
        lowest = data.geom_xpos[foot.id][2] - foot.size[0]
        along = abs(data.geom_xmat[shank.id][8]) * shank.size[1]
        assert data.geom_xpos[shank.id][2] - along - shank.size[0] > lowest + 0.005


def test_gripper_holds_a_can(model):
    """At -0.4 rad jaw and finger touch what is round, of 66 mm, at the grasp site, and leave room around it."""
    scene = read_model(SPEC.mjcf)
    wrist = scene.body("arm_wr1")
    grasp = scene.site("grasp").pos
    wrist.add_geom(name="round", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.0335, 0.0575, 0], pos=grasp,
                   quat=[0.7071068, 0.7071068, 0, 0], contype=2, conaffinity=3, mass=0.0)  # fmt: skip
    held = scene.compile()
    data = mujoco.MjData(held)
    place = held.joint("finger").qposadr[0]
    touched = {}
    for angle in (-1.1, -0.4):
        data.qpos[place] = angle
        mujoco.mj_forward(held, data)
        parts = ("jaw_back", "jaw_front", "jaw_palm", "finger_back", "finger_front", "finger_root")
        touched[angle] = {
            name: mujoco.mj_geomDistance(held, data, held.geom(name).id, held.geom("round").id, 1.0, None)
            for name in parts
        }
    # The cylinder is larger by half a millimetre.
    for name in ("jaw_back", "jaw_front", "finger_back", "finger_front"):
        assert touched[-0.4][name] == pytest.approx(-0.0005, abs=2e-4)
    assert touched[-0.4]["jaw_palm"] > 0.005
    assert min(touched[-1.1][name] for name in ("finger_back", "finger_front", "finger_root")) > 0.03
    # Tips leave room for a person's palm, and faces for fingers on the can's ends.
    tips = [held.geom(name).id for name in parts if "palm" not in name]
    for geom in tips:
        size, turned = held.geom_size[geom], data.geom_xmat[geom].reshape(3, 3)
        axes = data.body("arm_wr1").xmat.reshape(3, 3)
        away = axes.T @ (data.geom_xpos[geom] - data.site("grasp").xpos)
        reach = away + abs(axes.T @ turned) @ size
        assert reach[0] <= 0.038
        assert reach[1] <= 0.025


@pytest.mark.parametrize("mass", [0.37, 0.015])
def test_gripper_keeps_a_can(mass):
    """Full or empty, with 45 N: against its weight, which is along y, and 15 N out of the gripper."""
    scene = read_model(SPEC.mjcf)
    scene.body("trunk").quat = [0.7071068, 0.7071068, 0, 0]
    for thing in [*scene.actuators, *scene.joints]:
        if thing.name != "finger":
            scene.delete(thing)
    resting = scene.compile()
    data = mujoco.MjData(resting)
    mujoco.mj_forward(resting, data)
    grasp, out = data.site("grasp").xpos.copy(), data.site("grasp").xmat.reshape(3, 3)[:, 0].copy()
    objects.add_can(scene, *grasp, mass)
    model = scene.compile()
    data = mujoco.MjData(model)
    data.joint("finger").qpos[0] = -0.41
    lead = 45 * 0.1 / model.actuator("finger").gainprm[0]
    can = model.body("can").id
    for step in range(1000):
        data.ctrl[0] = data.joint("finger").qpos[0] + lead
        if step == 500:
            data.xfrc_applied[can, :3] = 15 * out
        mujoco.mj_step(model, data)
    assert data.xpos[can] == pytest.approx(grasp, abs=2e-3)
    assert data.xmat[can].reshape(3, 3)[2, 2] == pytest.approx(1.0, abs=1e-4)
    assert data.joint("finger").qpos[0] == pytest.approx(-0.4, abs=0.02)
    names = [[model.geom(int(geom)).name for geom in contact.geom] for contact in data.contact]
    assert all(contact.dist > -1e-3 for contact in data.contact)
    assert {name for pair in names for name in pair} == {
        "can", "jaw_back", "jaw_front", "finger_back", "finger_front"
    }  # fmt: skip
