"""The humanoid's model: what is published of it, its masses, what collides with what, and how it stands."""

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")

from persianrug.robots import objects  # noqa: E402
from persianrug.robots.atlas.spec import LEG, SPEC  # noqa: E402
from persianrug.robots.models import read_model  # noqa: E402
from persianrug.robots.spec import Kind  # noqa: E402
from persianrug.robots.taxels import geoms_of_patches, taxel_layout  # noqa: E402

# Half the soles, less a margin of 1 cm.
_SOLE_X, _SOLE_Y = 0.115, 0.05
_LEGS = ("thigh", "shank", "sole")


@pytest.fixture(scope="module")
def model():
    return read_model(SPEC.mjcf).compile()


@pytest.fixture(scope="module")
def scene():
    """The robot over a floor."""
    spec = read_model(SPEC.mjcf)
    objects.add_floor(spec, 0.8)
    return spec.compile()


def posed(model, angles=(), height=SPEC.height):
    data = mujoco.MjData(model)
    for joint, angle in {**SPEC.posture, **dict(angles)}.items():
        data.joint(joint).qpos[0] = angle
    data.qpos[2] = height
    mujoco.mj_forward(model, data)
    return data


def touching(model, data):
    """The pairs of geoms in contact."""
    return {tuple(sorted(model.geom(int(geom)).name for geom in contact.geom)) for contact in data.contact}


def test_joints(model):
    """Pelvis, then a motor for each joint, of its name and in its order within a limb."""
    assert model.joint(0).name == "root"
    assert model.body(SPEC.base).id == 1
    assert model.site("imu").bodyid[0] == 1
    joints = [model.joint(i).name for i in range(1, model.njnt)]
    assert sorted(joints) == sorted(model.actuator(i).name for i in range(model.nu))
    for i in range(model.nu):
        motor = model.actuator(i)
        assert model.joint(motor.trnid[0]).name == motor.name
        low, high = motor.ctrlrange
        assert 0 < high == -low
    for foot in SPEC.feet:
        assert foot.kind is Kind.FLAT
        assert foot.joints == tuple(f"{foot.name}_{joint}" for joint in LEG)
        chain = [model.joint(joint).id for joint in foot.joints]
        assert chain == list(range(chain[0], chain[0] + 6))
        assert model.jnt_bodyid[chain[-1]] == model.geom(foot.geom).bodyid[0]


def test_sides_are_alike(model):
    """Bodies, inertias, joints, motors and what collides: mirrored."""
    mirror = np.array([1, -1, 1])
    for i in range(1, model.nbody):
        body = model.body(i)
        if body.name.startswith("r_"):
            continue
        other = model.body("r" + body.name[1:]) if body.name.startswith("l_") else body
        assert other.pos == pytest.approx(body.pos * mirror)
        assert other.ipos == pytest.approx(body.ipos * mirror)
        assert other.mass[0] == body.mass[0]
        assert other.inertia == pytest.approx(body.inertia)
    for i in range(1, model.njnt):
        joint = model.joint(i)
        if joint.name.startswith("l_"):
            other = model.joint("r" + joint.name[1:])
            ends = joint.range if joint.axis[1] else -joint.range[::-1]
            assert (other.axis == joint.axis).all()
            assert other.range == pytest.approx(ends)
            motor, twin = model.actuator(joint.name), model.actuator(other.name)
            assert (motor.ctrlrange == twin.ctrlrange).all()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    for i in range(model.ngeom):
        geom = model.geom(i)
        if geom.name.startswith("l_"):
            other = model.geom("r" + geom.name[1:])
            assert (other.type, *other.size) == (geom.type, *geom.size)
            assert data.geom_xpos[other.id] == pytest.approx(data.geom_xpos[i] * mirror)
    # What is only seen has no name, and is compared all together.
    seen = {}
    for i in range(model.ngeom):
        name = model.body(model.geom_bodyid[i]).name
        if not model.geom(i).name and name[:2] in ("l_", "r_"):
            seen.setdefault(name, []).append([*data.geom_xpos[i], *model.geom_size[i], model.geom_matid[i]])
    for name, left in seen.items():
        if name.startswith("l_"):
            right = np.array(seen["r" + name[1:]]) * [1, -1, 1, 1, 1, 1, 1]
            near = np.abs(np.array(left)[:, None] - right[None]).max(axis=2)
            assert (near.min(axis=1) < 1e-9).all(), name


def test_masses_are_given(model):
    """Each body has its own mass and an inertia that solids can have; geoms weigh nothing."""
    for i in range(1, model.nbody):
        a, b, c = sorted(model.body_inertia[i])
        assert model.body_mass[i] > 0
        assert a > 0
        assert c <= a + b
    assert model.body_subtreemass[0] == pytest.approx(80.0)


def test_what_collides(model):
    """Legs collide with the other leg, and nothing else of the robot with the robot."""
    collides = [i for i in range(model.ngeom) if model.geom_contype[i] or model.geom_conaffinity[i]]
    assert all(model.geom(i).name for i in collides)
    assert all(model.geom_group[i] in (2, 3) for i in range(model.ngeom))
    pairs = set()
    for i in collides:
        for k in collides:
            if model.geom_contype[i] & model.geom_conaffinity[k]:
                pairs.add(frozenset((model.geom(i).name, model.geom(k).name)))
    assert pairs == {frozenset((f"l_{one}", f"r_{other}")) for one in _LEGS for other in _LEGS}


def test_meets_the_world():
    """All of its skin collides with a floor, a stand, a person and a can."""
    spec = read_model(SPEC.mjcf)
    objects.add_floor(spec, 0.8)
    objects.add_stand(spec, 2.0, 0.0, 0.5)
    objects.add_person(spec)
    objects.add_can(spec, 1.0, 0.0, 1.0, 0.37)
    model = spec.compile()
    covered = [geom for geoms in geoms_of_patches(model, SPEC.patches) for geom in geoms]
    for thing in ("floor", "stand", "palm", "person_top", "can"):
        other = model.geom(thing).id
        for geom in covered:
            met = model.geom_contype[geom] & model.geom_conaffinity[other]
            met |= model.geom_contype[other] & model.geom_conaffinity[geom]
            assert met, (thing, model.geom(geom).name)
    # Balls on the rims of a can are there for what it stands on alone.
    balls = [i for i in range(model.ngeom) if model.geom_conaffinity[i] == 8]
    assert balls
    assert not any(model.geom_contype[geom] & 8 for geom in covered)


def test_skin(model):
    """4096 taxels, on all that collides."""
    covered = [geom for geoms in geoms_of_patches(model, SPEC.patches) for geom in geoms]
    assert sorted(covered) == [i for i in range(model.ngeom) if model.geom_contype[i]]
    layout = taxel_layout(model, SPEC.patches)
    assert len(layout.position) == 4096
    assert layout.patches == tuple(patch.name for patch in SPEC.patches)
    for shared in SPEC.codes:
        assert set(shared) <= set(layout.patches)
    # As many on the left as on the right, and more than a third of a sole's below.
    counts = dict(zip(layout.patches, np.bincount(layout.patch), strict=True))
    assert all(count == counts["r" + name[1:]] for name, count in counts.items() if name.startswith("l_"))
    below = (layout.patch == layout.patches.index("l_sole")) & (layout.normal[:, 2] < -0.99)
    assert below.sum() > 640 / 3


def test_stands_flat(scene):
    """At its height the soles lie flat on the ground, x forward, and nothing else touches it."""
    data = posed(scene)
    for foot in SPEC.feet:
        under = data.site(foot.site)
        assert under.xpos[2] == pytest.approx(0.0, abs=1e-6)
        assert under.xmat.reshape(3, 3) == pytest.approx(np.eye(3), abs=1e-9)
        sole = scene.geom(foot.geom)
        assert data.geom_xpos[sole.id] - under.xpos == pytest.approx([0, 0, sole.size[2]], abs=1e-9)
    centre = data.subtree_com[1]
    for foot in SPEC.feet:
        assert abs(centre[0] - data.site(foot.site).xpos[0]) < _SOLE_X
    assert centre[1] == pytest.approx(0.0, abs=1e-9)
    assert 0.75 < centre[2] < 0.95
    assert touching(scene, posed(scene, height=SPEC.height - 1e-3)) == {("floor", "l_sole"), ("floor", "r_sole")}


def test_posture_within_ends(model):
    for joint, angle in SPEC.posture.items():
        low, high = model.joint(joint).range
        assert low < angle < high
    assert all(model.joint(i).range[0] <= 0.05 for i in range(1, model.njnt))


@pytest.mark.parametrize("roll", [-0.1, 0.0, 0.3])
@pytest.mark.parametrize("pitch", [-1.0, -0.45, 0.1])
def test_walking_legs_are_apart(scene, roll, pitch):
    """One leg swings past the other, leaning inwards by up to 0.1 rad: they do not touch."""
    for bent in (0.4, 0.9, 1.4):
        ankle = float(np.clip(-pitch - bent, -1.1, 0.8))
        angles = {"l_hip_x": roll, "l_ankle_x": -roll, "l_hip_y": pitch, "l_knee": bent, "l_ankle_y": ankle}
        assert not touching(scene, posed(scene, angles, height=1.5))


@pytest.mark.parametrize("pitch", [-0.6, -0.45, -0.3])
def test_crossing_legs_touch(scene, pitch):
    angles = {"l_hip_x": -0.35, "l_hip_y": pitch}
    pairs = touching(scene, posed(scene, angles, height=1.5))
    assert pairs
    assert all(one.startswith("l_") and other.startswith("r_") for one, other in pairs)


def test_legs_are_stopped_by_each_other(scene):
    """Drawn inwards by 60 N m for half a second, in the air and weightless, they press and do not pass."""
    data = posed(scene, height=1.5)
    scene.opt.gravity[2] = 0.0
    wanted = data.qpos.copy()
    try:
        for _ in range(250):
            # All other joints are held where they are.
            data.qpos[:7], data.qvel[:6] = wanted[:7], 0.0
            for i in range(scene.nu):
                joint = scene.joint(scene.actuator(i).name)
                error = wanted[joint.qposadr[0]] - data.qpos[joint.qposadr[0]]
                data.ctrl[i] = 600.0 * error - 20.0 * data.qvel[joint.dofadr[0]]
            data.actuator("l_hip_x").ctrl[0] = -60.0
            data.actuator("r_hip_x").ctrl[0] = 60.0
            mujoco.mj_step(scene, data)
    finally:
        scene.opt.gravity[2] = -9.81
    pairs = touching(scene, data)
    assert pairs
    assert all(one.startswith("l_") and other.startswith("r_") for one, other in pairs)
    assert data.site("l_under").xpos[1] > data.site("r_under").xpos[1] + 0.08
    assert min(contact.dist for contact in data.contact) > -0.01


def test_is_held_up(scene):
    """Stiff joints alone keep it standing for a second: soles carry its weight, both alike."""
    data = posed(scene)
    wanted = data.qpos.copy()
    for _ in range(500):
        for i in range(scene.nu):
            joint = scene.joint(scene.actuator(i).name)
            error = wanted[joint.qposadr[0]] - data.qpos[joint.qposadr[0]]
            data.ctrl[i] = 3000.0 * error - 60.0 * data.qvel[joint.dofadr[0]]
        mujoco.mj_step(scene, data)
    assert touching(scene, data) == {("floor", "l_sole"), ("floor", "r_sole")}
    carried, moment, force = {"l_sole": 0.0, "r_sole": 0.0}, 0.0, np.zeros(6)
    for i, contact in enumerate(data.contact):
        mujoco.mj_contactForce(scene, data, i, force)
        name = next(scene.geom(int(geom)).name for geom in contact.geom if scene.geom(int(geom)).name != "floor")
        carried[name] += force[0]
        moment += force[0] * contact.pos[0]
    total = sum(carried.values())
    assert total == pytest.approx(80 * 9.81, rel=0.05)
    assert carried["l_sole"] == pytest.approx(carried["r_sole"], rel=0.05)
    assert data.qpos[2] == pytest.approx(SPEC.height, abs=0.02)
    # The middle of pressure is within the soles, and not on their rims.
    assert abs(moment / total - data.site("l_under").xpos[0]) < _SOLE_X
