"""Numbers of the robot on wheels, and whose they are.

Handle's as its maker told them with the film of February 2017, which are few; as others told them then; or ours,
where nothing is published.
"""

from __future__ import annotations

import mujoco

from persianrug.robots.facts import Fact, highest, lowest, mass, motors, offset, size, torque

_MAKER = "Boston Dynamics, below its film Introducing Handle of 27 February 2017"
_OURS = "ours; Handle's is not published"

_MASSES = (
    ("trunk", 51.0, ("trunk",)),
    ("leg with its wheel", 20.0, ("l_hip_link", "l_thigh", "l_shank", "l_wheel_link")),
    ("hip's link", 3.0, ("l_hip_link",)),
    ("thigh", 8.0, ("l_thigh",)),
    ("shank", 5.0, ("l_shank",)),
    ("wheel", 4.0, ("l_wheel_link",)),
    ("arm", 7.0, ("l_arm",)),
)
_LINKS = (
    ("from the middle to the hip's roll, sideways", 0.21, "l_hip_link", 1),
    ("from the hip's roll to its pitch, sideways", 0.09, "l_thigh", 1),
    ("from the hip to the knee, up", -0.5, "l_shank", 2),
    ("from the knee to the axle, up", -0.5, "l_wheel_link", 2),
    ("from the middle to the shoulder, sideways", 0.25, "l_arm", 1),
    ("from the hips to the shoulders, up", 0.58, "l_arm", 2),
)
_ENDS = (
    ("hip's roll", "l_roll", -0.5, 0.5),
    ("hip's pitch", "l_hip", -2.6, 1.0),
    ("knee", "l_knee", 0.1, 2.7),
    ("shoulder", "l_shoulder", -2.5, 2.5),
)
_TORQUES = (
    ("hip's roll", 300.0, "l_roll"),
    ("hip's pitch", 400.0, "l_hip"),
    ("knee", 500.0, "l_knee"),
    ("wheel", 120.0, "l_wheel"),
    ("shoulder", 150.0, "l_shoulder"),
)


def _tallest(model: mujoco.MjModel) -> float:
    """From the ground to the top of the head with straight legs, in m."""
    head = model.geom("head")
    legs = -offset("l_shank", 2)(model) - offset("l_wheel_link", 2)(model)
    return float(head.pos[2] + head.size[2]) + legs + size("l_tire")(model)


def _track(model: mujoco.MjModel) -> float:
    """Between the middles of the wheels with straight legs, in m."""
    half = offset("l_hip_link", 1)(model) + offset("l_thigh", 1)(model) + offset("l_wheel_link", 1)(model)
    return 2 * half


FACTS: tuple[Fact, ...] = (
    Fact("height with straight legs", 1.98, "m", _MAKER + ": it stands 6.5 ft tall", _tallest, 0.005),
    Fact("motors", 10, "", _MAKER + ": about 10 actuated joints; which ones is ours", motors),
    Fact("speed", 4.0, "m/s", _MAKER + ": 9 mph"),
    Fact("jump", 1.22, "m", _MAKER + ": 4 ft"),
    Fact("range", 24.0, "km", _MAKER + ": about 15 miles on one charge of its battery"),
    Fact("payload", 45.0, "kg", "mandatory.com in 2017: 100 lb; silicon.co.uk and designboom.com then say 50 kg"),
    Fact("mass", 105.0, "kg", "ours; we know of no page of its maker that says it", mass("trunk", below=True)),
    *(Fact(f"mass of the {what}", value, "kg", _OURS, mass(*bodies)) for what, value, bodies in _MASSES),
    *(Fact(what, value, "m", _OURS, offset(body, axis)) for what, value, body, axis in _LINKS),
    Fact("track", 0.6, "m", _OURS, _track),
    Fact("radius of a wheel", 0.2, "m", _OURS, size("l_tire")),
    Fact("half a wheel's width", 0.06, "m", _OURS, size("l_tire", 1)),
    *(Fact(f"lower end of the {what}", low, "rad", _OURS, lowest(joint)) for what, joint, low, _ in _ENDS),
    *(Fact(f"upper end of the {what}", high, "rad", _OURS, highest(joint)) for what, joint, _, high in _ENDS),
    *(Fact(f"torque of the {what}", most, "N m", _OURS + ", and its legs were hydraulic", torque(motor))
      for what, most, motor in _TORQUES),
)  # fmt: skip
