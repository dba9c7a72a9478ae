"""A toy robot: a box with two ball feet and a capsule for an arm, a little above a floor."""

import mujoco

from persianrug.robots.taxels import Patch

XML = """
<mujoco>
  <option timestep="0.002" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <asset>
    <mesh name="wedge" vertex="-.05 -.05 0  .05 -.05 0  .05 .05 0  -.05 .05 0  0 0 .06"/>
  </asset>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 .1" contype="2" conaffinity="3"/>
    <body name="trunk" pos="0 0 0.14">
      <freejoint name="root"/>
      <geom name="box" type="box" size=".15 .1 .05" mass="8" contype="1" conaffinity="2"/>
      <geom name="look" type="box" size=".2 .2 .2" contype="0" conaffinity="0" mass="0"/>
      <geom name="left" type="sphere" size=".04" pos=".1 .08 -.08" mass="1" contype="1" conaffinity="2"/>
      <geom name="right" type="sphere" size=".04" pos=".1 -.08 -.08" mass="1" contype="1" conaffinity="2"/>
      <body name="arm" pos="-.1 0 .06">
        <joint name="turn" axis="0 0 1" damping=".1"/>
        <geom name="rod" type="capsule" fromto="0 0 0 -.2 0 0" size=".03" mass=".5" contype="1" conaffinity="2"/>
        <geom name="cap" type="mesh" mesh="wedge" pos="-.2 0 0" mass=".1" contype="1" conaffinity="2"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""

PATCHES = (
    Patch("left", "trunk", 192, ("left",)),
    Patch("right", "trunk", 192, ("right",)),
    Patch("trunk", "trunk", 320),
    Patch("arm", "arm", 192),
)
CODES = (("left", "right"),)


def world(xml: str = XML) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The robot in the air."""
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data
