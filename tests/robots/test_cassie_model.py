"""The biped of Cassie's class: its numbers, that it is mirrored, and that it stands on its springs."""

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")

from persianrug.robots import objects, scene  # noqa: E402
from persianrug.robots.cassie.spec import SIDES, SPEC  # noqa: E402
from persianrug.robots.models import read_model  # noqa: E402
from persianrug.robots.taxels import taxel_layout  # noqa: E402

MOTORS = ("hip_roll", "hip_yaw", "hip_pitch", "knee", "toe")
# Hips have frames with z up; from the thigh on frames lie in the leg's plane, with z to the right.
UPRIGHT, FLAT = ("hip_roll", "hip_yaw"), ("hip_pitch", "knee", "shin", "tarsus", "foot")


@pytest.fixture(scope="module")
def model():
    return scene.robot_model(SPEC)


@pytest.fixture
def standing(model):
    data = mujoco.MjData(model)
    data.qpos[:] = scene.standing(model, SPEC)
    mujoco.mj_forward(model, data)
    return data


def _inertia(body):
    """About the body's axes."""
    turned = np.empty(9)
    mujoco.mju_quat2Mat(turned, body.iquat)
    turned = turned.reshape(3, 3)
    return turned @ np.diag(body.inertia) @ turned.T


def test_sides_are_alike(model):
    """Of the same masses, ends, motors and shapes, mirrored."""
    for names, mirror in ((UPRIGHT, [1, -1, 1]), (FLAT, [1, 1, -1])):
        for name in names:
            left, right = (model.body(f"{side}_{name}") for side in SIDES)
            # The thigh is the first whose own frame lies flat.
            within = [1, -1, 1] if name == "hip_pitch" else mirror
            assert right.pos == pytest.approx(left.pos * within, abs=1e-9)
            assert (right.quat == left.quat).all()
            assert right.mass[0] == left.mass[0]
            assert right.ipos == pytest.approx(left.ipos * mirror, abs=1e-9)
            assert _inertia(right) == pytest.approx(_inertia(left) * np.outer(mirror, mirror), abs=1e-9)
            shapes = [[i for i in range(model.ngeom) if model.geom_bodyid[i] == body.id] for body in (left, right)]
            for one, other in zip(*shapes, strict=True):
                assert model.geom_type[one] == model.geom_type[other]
                assert model.geom_size[other] == pytest.approx(model.geom_size[one])
                assert model.geom_pos[other] == pytest.approx(model.geom_pos[one] * mirror, abs=1e-9)
    for joint in (*MOTORS, "shin", "tarsus"):
        left, right = (model.joint(f"{side}_{joint}") for side in SIDES)
        ends = -left.range[::-1] if joint in ("hip_roll", "hip_yaw") else left.range
        assert right.range == pytest.approx(ends)
        assert (right.axis == left.axis).all()
        assert right.stiffness[0] == left.stiffness[0]
        for of_dof in (model.dof_armature, model.dof_damping):
            assert of_dof[left.dofadr[0]] == of_dof[right.dofadr[0]]
    for motor in MOTORS:
        left, right = (model.actuator(f"{side}_{motor}") for side in SIDES)
        assert (left.ctrlrange == right.ctrlrange).all()


def test_parts(model):
    """The joints and motors that its description names, in the order of the limb, and one free joint first."""
    assert model.joint(0).name == "root"
    assert model.body(1).name == SPEC.base
    assert [model.actuator(i).name for i in range(model.nu)] == [f"{s}_{m}" for s in SIDES for m in MOTORS]
    for foot in SPEC.feet:
        joints = [model.joint(name) for name in foot.joints]
        assert [joint.dofadr[0] for joint in joints] == sorted(joint.dofadr[0] for joint in joints)
        assert model.geom(foot.geom).type[0] == mujoco.mjtGeom.mjGEOM_CAPSULE
        assert model.site(foot.site).bodyid[0] == model.geom(foot.geom).bodyid[0]
    driven = set(model.actuator_trnid[:, 0].tolist())
    tied = {model.joint(name).id for name in SPEC.ties}
    assert driven | tied == set(range(1, model.njnt))
    assert not driven & tied


def test_masses_are_given(model):
    """Each body has its own mass and an inertia that solids can have; geoms weigh nothing."""
    for i in range(1, model.nbody):
        a, b, c = sorted(model.body_inertia[i])
        assert model.body_mass[i] > 0
        assert a > 0
        assert c <= a + b
    assert model.body_subtreemass[0] == pytest.approx(32.94)
    bare = read_model(SPEC.mjcf)
    for geom in list(bare.geoms):
        bare.delete(geom)
    assert bare.compile().body_mass == pytest.approx(model.body_mass)


def test_looks_do_not_collide(model):
    """What collides is what the robot's skin is on, and has a name: never with the robot itself."""
    for i in range(model.ngeom):
        kinds = (int(model.geom_contype[i]), int(model.geom_conaffinity[i]))
        assert kinds == ((1, 2) if model.geom(i).name else (0, 0))
        assert model.geom_group[i] == 2


def test_skin(model):
    layout = taxel_layout(model, SPEC.patches)
    counts = dict(zip(layout.patches, np.bincount(layout.patch).tolist(), strict=True))
    assert sum(counts.values()) == 4096
    assert counts == {patch.name: patch.taxels for patch in SPEC.patches}
    # All that collides is covered.
    bodies = {patch.body for patch in SPEC.patches}
    for i in np.flatnonzero(model.geom_contype):
        assert model.body(int(model.geom_bodyid[i])).name in bodies
    # Feet feel most finely; two taxels of a sole are some millimetres apart.
    area = {name: layout.area[layout.patch == i].mean() for i, name in enumerate(layout.patches)}
    assert min(area, key=area.get) in ("l_foot", "r_foot")
    assert area["l_foot"] < 0.007**2


def test_stands_flat(model, standing):
    """Soles are on the ground, level, forward and mirrored, under the middle of its mass."""
    places = []
    for foot in SPEC.feet:
        sole, capsule = standing.site(foot.site), standing.geom(foot.geom)
        turned = sole.xmat.reshape(3, 3)
        assert turned == pytest.approx(np.eye(3), abs=1e-4)
        assert abs(capsule.xmat.reshape(3, 3)[:, 2] @ turned[:, 0]) == pytest.approx(1.0, abs=1e-6)
        assert sole.xpos == pytest.approx(capsule.xpos - [0, 0, model.geom(foot.geom).size[0]], abs=2e-5)
        assert sole.xpos[2] == pytest.approx(0.0, abs=2e-5)
        places.append(sole.xpos)
    assert places[0] == pytest.approx(places[1] * [1, -1, 1], abs=1e-9)
    assert standing.body(SPEC.base).xpos[2] == pytest.approx(SPEC.height, abs=1e-4)
    assert standing.subtree_com[0][:2] == pytest.approx(places[0][:2] * [1, 0], abs=0.02)
    for joint in range(1, model.njnt):
        low, high = model.jnt_range[joint]
        assert low < standing.qpos[model.jnt_qposadr[joint]] < high


def test_springs_are_at_rest(model, standing):
    """Where it stands, without its weight; and ties keep them there."""
    assert standing.qfrc_passive == pytest.approx(0.0, abs=1e-9)
    for tied, by in SPEC.ties.items():
        angle = sum(factor * standing.joint(joint).qpos[0] for joint, factor in by.items())
        assert standing.joint(tied).qpos[0] == pytest.approx(angle)


@pytest.fixture(scope="module")
def resting():
    """On a floor for some seconds, with stiff motors; the pelvis can only move up and down."""
    held = read_model(SPEC.mjcf)
    held.delete(held.joint("root"))
    held.body(SPEC.base).add_joint(name="up", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1])
    objects.add_floor(held, 0.8)
    model = held.compile()
    data = mujoco.MjData(model)
    for name, angle in SPEC.posture.items():
        data.joint(name).qpos[0] = angle
    data.joint("up").qpos[0] = SPEC.height - model.body(SPEC.base).pos[2]
    wanted = np.array([SPEC.posture.get(model.actuator(i).name, 0.0) for i in range(model.nu)])
    dofs = model.jnt_dofadr[model.actuator_trnid[:, 0]]
    places = model.jnt_qposadr[model.actuator_trnid[:, 0]]
    for _ in range(3000):
        data.ctrl = 1500 * (wanted - data.qpos[places]) - 40 * data.qvel[dofs]
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    return model, data


def test_rests_on_its_springs(resting):
    """Under its weight shins and heels give by degrees, not more, and it is at rest on both feet."""
    model, data = resting
    assert np.abs(data.qvel).max() < 0.01
    assert data.joint("up").qpos[0] + model.body(SPEC.base).pos[2] == pytest.approx(SPEC.height, abs=0.04)
    for side in SIDES:
        shin = data.joint(f"{side}_shin").qpos[0]
        heel = data.tendon(f"{side}_heel").length[0]
        assert np.radians(0.3) < abs(shin) < np.radians(5)
        assert np.radians(0.3) < abs(heel) < np.radians(5)
        assert data.site(f"{side}_sole").xmat.reshape(3, 3)[2, 2] == pytest.approx(1.0, abs=5e-3)
    forces = {"l_foot": 0.0, "r_foot": 0.0}
    for i, contact in enumerate(data.contact):
        force = np.empty(6)
        mujoco.mj_contactForce(model, data, i, force)
        (foot,) = (model.geom(int(g)).name for g in contact.geom if model.geom(int(g)).name in forces)
        forces[foot] += force[0]
    weight = model.body_subtreemass[0] * 9.81
    assert sum(forces.values()) == pytest.approx(weight, rel=0.01)
    assert forces["l_foot"] == pytest.approx(forces["r_foot"], rel=0.01)


def test_springs_bear_the_weight(resting):
    """As statics has it: about a hinge, springs bear what the ground and weights do to all that is below it."""
    model, data = resting
    for side in SIDES:
        heel = 1250 * data.tendon(f"{side}_heel").length[0]
        shin = 1500 * data.joint(f"{side}_shin").qpos[0]
        for joint, springs in ((f"{side}_shin", shin + heel), (f"{side}_tarsus", heel)):
            hinge, axis = data.joint(joint).xanchor, data.joint(joint).xaxis
            below = [f"{side}_{name}" for name in ("shin", "tarsus", "foot")]
            moment = np.zeros(3)
            for body in below[below.index(joint) :]:
                weight = [0, 0, -9.81 * model.body(body).mass[0]]
                moment += np.cross(data.body(body).xipos - hinge, weight)
            for i, contact in enumerate(data.contact):
                if model.geom(f"{side}_foot").id in contact.geom:
                    force = np.empty(6)
                    mujoco.mj_contactForce(model, data, i, force)
                    up = contact.frame.reshape(3, 3).T @ force[:3]
                    moment += np.cross(contact.pos - hinge, up * np.sign(up[2]))
            assert springs == pytest.approx(moment @ axis, abs=0.5)
