"""Numbers of the quadruped, and whose they are.

SpotMini's as it was shown in 2018, of which little more than masses was published, on a page that is gone, so that
others are quoted; the later Spot's, of which there is a URDF; or ours, where neither says anything.
"""

from __future__ import annotations

from persianrug.robots.facts import Fact, highest, lowest, mass, motors, offset, place, size, torque

_MINI = "SpotMini of 2018, as element14.com told it on 22 April 2019"
_ALONE = "SpotMini, as algoodmiddleschoolnews.com quotes its maker; in 2016 it was 55 lb (wired.co.uk)"
_SPOT = "the later Spot: its URDF in bdaiinstitute/spot_ros2 on GitHub"
_ENDS_OF = _SPOT + ", rounded"
_SIMULATED = "the later Spot, as simulations have it"
_OURS = "ours; SpotMini's is not published"

_LINKS = (
    ("hips' axes from the middle, forward", 0.29785, "fl_hip", 0),
    ("hips' axes from the middle, sideways", 0.055, "fl_hip", 1),
    ("from the hip's roll to its pitch, sideways", 0.110945, "fl_upper", 1),
    ("from the hip to the knee, forward", 0.025, "fl_lower", 0),
    ("from the hip to the knee, up", -0.3205, "fl_lower", 2),
    ("from the middle to the arm, forward", 0.292, "arm_sh0", 0),
    ("from the middle to the arm, up", 0.188, "arm_sh0", 2),
    ("from the shoulder to the elbow", 0.3385, "arm_el0", 0),
    ("from the elbow to the wrist, forward", 0.4033, "arm_el1", 0),
    ("from the elbow to the wrist, up", 0.075, "arm_el1", 2),
)
# The later Spot's ends, rounded to the degree or so.
_ENDS = (
    ("hip's roll", "fl_hx", -0.785, 0.785),
    ("hip's pitch", "fl_hy", -0.9, 2.295),
    ("knee", "fl_kn", -2.793, -0.25),
    ("arm's yaw", "arm_sh0", -2.618, 3.142),
    ("shoulder", "arm_sh1", -3.142, 0.524),
    ("elbow", "arm_el0", 0.0, 3.142),
    ("forearm's roll", "arm_el1", -2.793, 2.793),
    ("wrist", "arm_wr0", -1.833, 1.833),
    ("wrist's roll", "arm_wr1", -2.880, 2.880),
)
_TORQUES = (
    ("hip's roll", 60.0, "fl_hx", "ours; simulations of the later Spot have 45"),
    ("hip's pitch", 60.0, "fl_hy", "ours; simulations of the later Spot have 45"),
    ("knee", 115.0, "fl_kn", _SIMULATED),
    ("arm's yaw", 34.0, "arm_sh0", _OURS),
    ("shoulder", 60.0, "arm_sh1", _OURS),
    ("elbow", 50.0, "arm_el0", _OURS),
    ("forearm's roll", 15.0, "arm_el1", _OURS),
    ("wrist", 15.0, "arm_wr0", _OURS),
    ("wrist's roll", 15.0, "arm_wr1", _OURS),
    ("gripper", 15.0, "finger", _OURS),
)

FACTS: tuple[Fact, ...] = (
    Fact("mass with the arm", 30.0, "kg", _MINI, mass("trunk", below=True)),
    Fact("mass without the arm", 25.0, "kg", _ALONE,
         lambda model: mass("trunk", below=True)(model) - mass("arm_sh0", below=True)(model)),
    Fact("height with the arm folded", 0.84, "m", _MINI + "; ours stands higher, at 0.92 m"),
    Fact("payload", 14.0, "kg", _MINI),
    Fact("joints", 17, "", _MINI + "; 12 in the legs leave 5 for the arm, of which ours has 6 and a gripper"),
    Fact("motors", 19, "", "the later Spot with its arm: 3 a leg, 6, and the gripper's", motors),
    Fact("mass of the arm with the gripper", 5.0, "kg", "30 kg less 25 kg; the later Spot's arm has 8 kg",
         mass("arm_sh0", below=True)),
    Fact("mass of the trunk", 11.8, "kg", _OURS, mass("trunk")),
    Fact("mass of a leg", 3.3, "kg", _OURS, mass("fl_hip", below=True)),
    Fact("mass of a shank with its foot", 0.3, "kg", _OURS, mass("fl_lower")),
    Fact("mass of the gripper's finger", 0.08, "kg", _OURS, mass("finger")),
    *(Fact(what, value, "m", _SPOT, offset(body, axis)) for what, value, body, axis in _LINKS),
    Fact("from the knee to the foot's middle, up", -0.3365, "m", "the later Spot: the ankle in other URDFs of it",
         place("fl_foot", 2)),
    Fact("radius of a foot", 0.036, "m", _OURS, size("fl_foot")),
    Fact("from the wrist to the gripper's hinge, forward", 0.11, "m", "ours; the later Spot's is 0.11745",
         offset("finger", 0)),
    Fact("from the wrist to the gripper's hinge, up", 0.033, "m", "ours; the later Spot's is 0.01482",
         offset("finger", 2)),
    *(Fact(f"lower end of the {what}", low, "rad", _ENDS_OF, lowest(joint), 0.005)
      for what, joint, low, _ in _ENDS),
    *(Fact(f"upper end of the {what}", high, "rad", _ENDS_OF, highest(joint), 0.005)
      for what, joint, _, high in _ENDS),
    Fact("lower end of the gripper, opened", -1.57, "rad", _SPOT, lowest("finger")),
    Fact("upper end of the gripper, closed on nothing", 0.1, "rad", "ours; the later Spot's is 0",
         highest("finger")),
    *(Fact(f"torque of the {what}", most, "N m", source, torque(motor)) for what, most, motor, source in _TORQUES),
)  # fmt: skip
