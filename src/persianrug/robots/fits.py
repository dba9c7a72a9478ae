"""Whether what is said of a robot fits its model."""

from __future__ import annotations

import mujoco

from persianrug.robots.spec import Kind, RobotSpec

_BODY, _JOINT, _GEOM, _SITE = (
    mujoco.mjtObj.mjOBJ_BODY,
    mujoco.mjtObj.mjOBJ_JOINT,
    mujoco.mjtObj.mjOBJ_GEOM,
    mujoco.mjtObj.mjOBJ_SITE,
)
_WORDS = {_BODY: "bodies", _JOINT: "joints", _GEOM: "geoms", _SITE: "sites"}
_SHAPES = {
    Kind.POINT: (mujoco.mjtGeom.mjGEOM_SPHERE, "a sphere"),
    Kind.LINE: (mujoco.mjtGeom.mjGEOM_CAPSULE, "a capsule"),
    Kind.FLAT: (mujoco.mjtGeom.mjGEOM_BOX, "a box"),
    Kind.WHEEL: (mujoco.mjtGeom.mjGEOM_ELLIPSOID, "an ellipsoid"),
}


def check_fit(model: mujoco.MjModel, spec: RobotSpec) -> None:
    """Raise ValueError unless the model has all that the spec names, and feet are shaped as their kinds say."""

    def has(kind: mujoco.mjtObj, name: str, what: str) -> None:
        if mujoco.mj_name2id(model, kind, name) < 0:
            count = {_BODY: model.nbody, _JOINT: model.njnt, _GEOM: model.ngeom, _SITE: model.nsite}[kind]
            names = (mujoco.mj_id2name(model, kind, i) for i in range(count))
            known = ", ".join(one for one in names if one) or "none, it has none with a name"
            raise ValueError(f"{what} is {name!r}; allowed: {_WORDS[kind]} of the model: {known}")

    has(_BODY, spec.base, "base")
    if model.body(spec.base).jntadr[0] != 0:
        raise ValueError(f"base is {spec.base!r}; allowed: the body with the free joint, which is the first")
    for foot in spec.feet:
        has(_GEOM, foot.geom, f"the geom of foot {foot.name!r}")
        shape, said = _SHAPES[foot.kind]
        if model.geom(foot.geom).type[0] != shape:
            raise ValueError(
                f"the geom of foot {foot.name!r} is {foot.geom!r}; allowed: {said} of a {foot.kind.value}"
            )
        if bool(foot.site) != (foot.kind in (Kind.LINE, Kind.FLAT)):
            wanted = "a site" if foot.kind in (Kind.LINE, Kind.FLAT) else "none"
            raise ValueError(
                f"the site of foot {foot.name!r} is {foot.site!r}; allowed of a {foot.kind.value}: {wanted}"
            )
        if foot.site:
            has(_SITE, foot.site, f"the site of foot {foot.name!r}")
        for joint in foot.joints:
            has(_JOINT, joint, f"a joint of foot {foot.name!r}")
        if foot.patch not in [patch.name for patch in spec.patches]:
            known = ", ".join(patch.name for patch in spec.patches)
            raise ValueError(f"the patch of foot {foot.name!r} is {foot.patch!r}; allowed: {known}")
    for joint in spec.posture:
        has(_JOINT, joint, "a joint of the posture")
    for joint, sum_of in spec.ties.items():
        for one in (joint, *sum_of):
            has(_JOINT, one, "a joint of a tie")
    if spec.arm is not None:
        for joint in (*spec.arm.joints, spec.arm.finger):
            has(_JOINT, joint, "a joint of the arm")
        has(_SITE, spec.arm.grasp, "the grasp of the arm")
