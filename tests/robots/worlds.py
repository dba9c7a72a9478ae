"""Small worlds that tests of robots share."""

import mujoco
import numpy as np

from persianrug.robots import objects, scene
from persianrug.robots.contacts import TrueContacts
from persianrug.robots.controller import LeggedController
from persianrug.robots.estimator import LegOdometry, TrueState
from persianrug.robots.gait import GaitPlanner
from persianrug.robots.spot.spec import GAIT, SPEC
from persianrug.robots.terrain import Terrain

DT = 0.004


class Standing:
    """A quadruped on a floor, stepped tick by tick."""

    def __init__(self, terrain=None, odometry=False, friction=0.8, furnish=None):
        def all_of(spec):
            objects.add_floor(spec, friction)
            if furnish:
                furnish(spec)

        self.model, _ = scene.build_scene(SPEC, all_of, friction=friction)
        alone = scene.robot_model(SPEC)
        self.planner = GaitPlanner(GAIT, scene.footprint(alone, SPEC), terrain or Terrain())
        self.controller = LeggedController(alone, SPEC, self.planner)
        self.sensor = TrueContacts(self.model, SPEC.patches)
        odometer = LegOdometry(alone, SPEC, self.planner, seed=0)
        self.estimator = odometer if odometry else TrueState(alone.nq, alone.nv)
        self.data = mujoco.MjData(self.model)
        self.data.qpos[:] = scene.standing(self.model, SPEC)
        mujoco.mj_forward(self.model, self.data)

    def tick(self):
        reading = self.sensor.sense(self.data)
        q, v = self.estimator.estimate(self.data, reading, DT)
        self.controller.observe(q, v, reading, self.data.time)
        torque = self.controller.act(DT)
        self.data.ctrl[: len(torque)] = torque
        mujoco.mj_step(self.model, self.data, 2)

    def run(self, seconds, each=None):
        end = self.data.time + seconds - 1e-9
        while self.data.time < end:
            self.tick()
            if each:
                each(self)

    def walk(self, speed, seconds=1.5, each=None):
        """Trot, and come to a speed along x within some seconds."""
        self.planner.command.walking = True
        for share in np.linspace(0, 1, 20):
            self.planner.command.velocity = np.array([speed * share, 0.0])
            self.run(seconds / 20, each)
