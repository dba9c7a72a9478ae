"""Steps of two feet by the divergent component of motion (Englsberger et al. 2015; Khadiv et al. 2020).

The centre of mass falls as a pendulum does: c'' = w^2 (c - p) about the centre of pressure p. Of its motion only
xi = c + c'/w runs away, with xi' = w (xi - p), so a walk is a plan for xi: where it is at the end of a step, seen
from the next foothold, says how fast the walk goes on. What is wrong is mended first by the pressure under the
sole, then by the foothold, then by the time of the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from persianrug.robots.gait import Command, FootTouch, Plan
from persianrug.robots.state import RobotState, about_z, wrapped
from persianrug.robots.swing import Pursuit
from persianrug.robots.terrain import Terrain

Floats = NDArray[np.float64]
Box = tuple[tuple[float, float], tuple[float, float]]

_GRAVITY = 9.81
# Gains: of height (1/s^2, 1/s) with its ends (m/s^2), and of tilt and yaw.
_HEIGHT, _LIFTS = (80.0, 16.0), 6.0
_TILT = (100.0, 20.0)
# What is commanded changes by so much (m/s^2); of speed that is missing this share is added a step, up to so much
# (m/s), unless it is off by more than the last.
_CHANGE, _TRIM, _MOST_TRIM, _ASTRAY = 0.5, 0.15, 0.25, 0.4
# Standing, xi is brought back at this rate (1/s). A walk begins with so many seconds of leaning on one foot.
_BACK, _LEAN = 3.0, 0.5
# How much of the way from the middle of the feet to one of them it leans then.
_LEANT = 0.3
# Targets are fixed in the last so many seconds of a step; a step is made shorter down to this share of its time if
# the foothold is beyond reach by so much (m), at this rate.
_FIXED, _SHORTEST, _BEYOND, _HURRY = 0.04, 0.6, 0.02, 1.0
# A touch counts after this share of a swing; a foot that finds no ground goes down at (m/s), for (s) at most.
_EARLY, _SINK, _SEARCH = 0.55, 0.35, 0.12
# The share of a step by which the mean of how early feet come down is moved, and how much that is at most (s).
_LEARNT, _MOST_EARLY = 0.2, 0.1
# Over a bar a foot first rises for this share of its swing, and is where it should be this share before its end.
_RISES, _COMES = 0.15, 0.25
# The ground's height for the base changes at most at this rate (m/s).
_CLIMB = 0.35
# Feet stand well if xi is so near to their middle, and they are so much beside each other, in metres.
_NEAR, _BESIDE = (0.05, 0.08), 0.08


@dataclass(frozen=True)
class Steps:
    """Numbers of a walk on two feet; metres, seconds, newtons.

    Parameters
    ----------
    time : float
        Of a step.
    double : float
        Of that with both feet on the ground.
    width : float
        Between the feet.
    height : float
        Of the base above the soles.
    sole : ((float, float), (float, float))
        Where the centre of pressure may be in a sole: x and y from its middle.
    reach : ((float, float), (float, float))
        Where a foothold may be from the other foot: forward, and outward.
    lift : float
        How high a foot is lifted.
    touch : float
        A foot that feels so much stands.
    loading : float
        It takes over its load so long after it has come down.
    landing : float
        A foot aims so far below the ground.
    stands : bool
        Whether it can stand still on its soles.
    """

    time: float
    double: float
    width: float
    height: float
    sole: Box
    reach: Box
    lift: float = 0.07
    touch: float = 30.0
    loading: float = 0.0
    landing: float = 0.0
    stands: bool = True


class StepPlanner:
    """Steps of a biped.

    Parameters
    ----------
    steps : Steps
    terrain : Terrain
        As it is believed to be.
    by_clock : bool
        Whether feet stand when their time has come, whatever they feel: to be compared with.

    Attributes
    ----------
    command : Command
    stance : bool array (2,)
    height : float
        Of the base above the ground, in metres; it may be changed.
    steps_made : int
    """

    def __init__(self, steps: Steps, terrain: Terrain | None = None, *, by_clock: bool = False) -> None:
        self.steps, self.terrain, self.by_clock = steps, terrain or Terrain(), by_clock
        self.command = Command()
        self.height = self._height = steps.height
        self.stance, self.standing = np.ones(2, dtype=bool), np.ones(2)
        self.steps_made = 0
        self._walks = False
        # The foot that stands while the other swings; the time of this step, how long it is to last, and for how
        # long the walk has leant on one foot.
        self._support, self._time, self._lasts, self._leaning = 0, 0.0, steps.time, 0.0
        # Feet come down sooner than planned by so much: a mean over the last steps.
        self._early = 0.0
        self._lifted = False
        self._foothold, self._pressure, self._last_pressure = np.zeros(2), np.zeros(2), np.zeros(2)
        self._swings = Pursuit()
        self._lifted_from = 0.0
        self._velocity, self._trim = np.zeros(2), np.zeros(2)
        # Where the centre of mass was as the last steps began.
        self._begun: list[tuple[float, Floats]] = []
        self._facing: float | None = None
        self._ground: float | None = None

    @property
    def threshold(self) -> float:
        """A foot that feels so many newtons carries."""
        return self.steps.touch

    @property
    def settled(self) -> bool:
        """Whether both feet stand, for a while."""
        return bool(not self._walks and self.standing.min() > 0.25)

    def plan(self, state: RobotState, touch: FootTouch, dt: float) -> Plan:
        """The plan of this tick, `dt` seconds after the last one."""
        if self._facing is None:
            self._facing, self._ground = state.yaw, float(state.feet[:, 2].mean())
        self._facing = wrapped(self._facing + self.command.turn * dt)
        change = _CHANGE * dt
        self._velocity = self._velocity + np.clip(self.command.velocity - self._velocity, -change, change)
        self._height += min(max(self.height - self._height, -0.4 * dt), 0.4 * dt)
        turned = about_z(self._facing)[:2, :2]
        rate = math.sqrt(_GRAVITY / max(0.3, state.com[2] - float(state.feet[self._support, 2])))
        xi = state.com[:2] + state.com_velocity[:2] / rate
        self._time += dt
        if not self._walks:
            pressure = self._stand(state, xi, rate, turned, dt)
        if self._walks:
            pressure = self._step(state, touch, xi, rate, turned, dt)
        self._pressure = pressure
        self.standing = np.where(self.stance, self.standing + dt, 0.0)
        self._climb(state, dt)
        return self._told(state, touch, pressure, rate)

    def _stand(self, state: RobotState, xi: Floats, rate: float, turned: Floats, dt: float) -> Floats:
        """Where the pressure should be (2,) while both feet stand; a walk begins here."""
        feet = state.feet[:, :2]
        middle = feet.mean(axis=0)
        self.stance[:] = True
        (back, front), (_, side) = self.steps.sole
        half = 0.5 * abs(turned[:, 1] @ (feet[0] - feet[1]))
        aim = middle
        if self.command.walking:
            self._leaning += dt
            aim = middle + _LEANT * (feet[1] - middle)
        away = turned.T @ (xi - middle)
        falls = abs(away[0]) > 0.9 * front or abs(away[1]) > half
        if falls:
            self._begin(0 if away[1] > 0 else 1, state)
        elif self._leaning > _LEAN:
            self._begin(1, state)
        wanted = turned.T @ (aim + (1 + _BACK / rate) * (xi - aim) - middle)
        return middle + turned @ np.clip(wanted, [back, -half - side], [front, half + side])

    def _begin(self, support: int, state: RobotState) -> None:
        """Begin a step: the other foot is to swing."""
        self._walks, self._leaning = True, 0.0
        self._support, self._time, self._lasts, self._lifted = support, 0.0, self.steps.time, False
        self._last_pressure = self._pressure.copy()
        self._foothold = state.feet[1 - support, :2].copy()
        self.stance[:] = True
        self.steps_made += 1
        self._begun = [*self._begun[-2:], (state.time, state.com[:2].copy())]
        if len(self._begun) == 3:
            (first, start), (last, end) = self._begun[0], self._begun[-1]
            mean = about_z(self._facing or 0.0)[:2, :2].T @ (end - start) / (last - first)
            missing = self._velocity - mean
            if np.abs(missing).max() < _ASTRAY:
                self._trim = np.clip(self._trim + _TRIM * missing, -_MOST_TRIM, _MOST_TRIM)

    def _step(
        self, state: RobotState, touch: FootTouch, xi: Floats, rate: float, turned: Floats, dt: float
    ) -> Floats:
        """Where the pressure should be (2,); the foot that swings is moved on, and may come down."""
        steps, support, swings = self.steps, self._support, 1 - self._support
        # Outward is to the left of a right foot.
        outward = -1.0 if support == 0 else 1.0
        left = max(self._lasts - self._time, 0.0)
        foot = state.feet[support, :2]
        growth = math.exp(rate * steps.time)
        vx, vy = self._velocity + self._trim
        # Where xi should be as the next foot takes over, seen from it.
        offset = np.array([vx * steps.time / (growth - 1),
                           -outward * steps.width / (1 + growth) + vy * steps.time / (growth - 1)])  # fmt: skip
        way = np.array([vx * steps.time, vy * steps.time])
        planned = foot + turned @ (way + np.array([0.0, outward * steps.width]))
        if self.terrain.bars:
            snapped = self._allowed(planned)
            after = self._allowed(snapped + turned @ (way - [0.0, outward * steps.width]))
            offset[0] = (turned.T @ (after - snapped))[0] / (growth - 1)
            planned = snapped
        until = max(left - self._early, 0.0) + 0.5 * steps.double + steps.loading
        grown = math.exp(rate * max(until, 0.12))
        pressure = self._within_sole((planned + turned @ offset - xi * grown) / (1 - grown), state, support)
        ends = pressure + (xi - pressure) * math.exp(rate * until)
        target, beyond = self._within_reach(ends - turned @ offset, foot, turned, outward)
        if beyond > _BEYOND and left > 0.10 and self._time > steps.double:
            self._lasts = max(self._lasts - _HURRY * dt, _SHORTEST * steps.time)
        if left > _FIXED:
            self._foothold = self._allowed(target)
        if self._time < steps.double:
            share = self._time / steps.double
            return (1 - share) * self._last_pressure + share * pressure
        if not self._lifted:
            self._lifted = True
            self.stance[swings] = False
            self._swings.start(state.feet[swings])
            self._lifted_from = float(state.feet[swings, 2])
        self._swing(left, dt)
        if self._landed(touch, swings):
            self._land(state, xi, turned, swings)
        return pressure

    def _within_sole(self, place: Floats, state: RobotState, foot: int) -> Floats:
        """The place nearest to one (2,) where a foot can press."""
        (back, front), (right, left) = self.steps.sole
        away = about_z(_yaw(state.feet_rotation[foot]))[:2, :2]
        middle = state.feet[foot, :2]
        low, high = np.array([back, right]), np.array([front, left])
        return middle + away @ np.clip(away.T @ (place - middle), low, high)

    def _within_reach(self, place: Floats, foot: Floats, turned: Floats, outward: float) -> tuple[Floats, float]:
        """The foothold nearest to a place (2,) that can be reached, and how far away that is."""
        (back, front), (near, far) = self.steps.reach
        away = turned.T @ (place - foot)
        reached = np.array([min(max(away[0], back), front), outward * min(max(outward * away[1], near), far)])
        return foot + turned @ reached, float(np.abs(away - reached).max())

    def _allowed(self, place: Floats) -> Floats:
        """The foothold nearest to a place (2,) where the ground allows one."""
        return np.array([self.terrain.foothold(float(place[0])), place[1]])

    def _swing(self, left: float, dt: float) -> None:
        """Move the foot in the air on."""
        steps, swings = self.steps, self._swings
        ground = self.terrain.height(float(self._foothold[0]))
        end = ground - steps.landing
        top = max(end, self._lifted_from) + steps.lift
        bar = self.terrain.crossed(float(swings.begun[0]), float(self._foothold[0]))
        lasts = self._lasts - steps.double
        rises, comes = 0.0, 0.02
        if bar:
            # It goes up before it goes forward, and is there before it comes down.
            top = max(top, bar + steps.lift)
            rises, comes = _RISES * lasts, _COMES * lasts
        if self._time < steps.double + rises or left < comes + 0.01:
            swings.rest(0)
            swings.rest(1)
        else:
            for axis in (0, 1):
                swings.pursue(axis, self._foothold[axis], left - comes, dt)
        half = steps.double + 0.5 * lasts
        if self._time < half:
            swings.pursue(2, top, half - self._time, dt)
        elif left > 0.02:
            swings.pursue(2, end, left, dt)
        else:
            swings.fall(2, _SINK, dt)

    def _landed(self, touch: FootTouch, foot: int) -> bool:
        steps = self.steps
        late = self._time - self._lasts
        if self.by_clock or not touch.valid[foot]:
            return late > 0
        early = self._time > steps.double + _EARLY * (self._lasts - steps.double)
        return bool((early and touch.pressing[foot] > steps.touch) or late > _SEARCH)

    def _land(self, state: RobotState, xi: Floats, turned: Floats, foot: int) -> None:
        """The foot that swung stands; the next step begins, or the walk is over."""
        self.standing[foot] = 0.0
        self._early += _LEARNT * (self._lasts - self._time - self._early)
        self._early = min(max(self._early, -_MOST_EARLY), _MOST_EARLY)
        feet = state.feet[:, :2]
        away = turned.T @ (xi - feet.mean(axis=0))
        apart = turned.T @ (feet[0] - feet[1])
        well = abs(away[0]) < _NEAR[0] and abs(away[1]) < _NEAR[1] and abs(apart[0]) < _BESIDE
        if self.steps.stands and well and not self.command.walking:
            self._walks = False
            self.stance[:] = True
        else:
            self._begin(foot, state)

    def _climb(self, state: RobotState, dt: float) -> None:
        """Follow the ground's height under the base."""
        heights = state.feet[:, 2]
        if not self._walks:
            aim = float(heights.mean())
        elif not self._lifted:
            aim = max(float(heights.min()), float(heights[self._support]) - 0.05)
        else:
            below = self.terrain.height(float(self._foothold[0])) - float(heights[self._support])
            aim = float(heights[self._support]) + 0.7 * min(0.0, below)
        assert self._ground is not None  # noqa: S101
        self._ground += min(max(aim - self._ground, -_CLIMB * dt), _CLIMB * dt)

    def _told(self, state: RobotState, touch: FootTouch, pressure: Floats, rate: float) -> Plan:
        facing, ground = self._facing or 0.0, self._ground or 0.0
        rise = _HEIGHT[0] * (self._height + ground - state.position[2]) - _HEIGHT[1] * state.velocity[2]
        linear = np.append(rate**2 * (state.com[:2] - pressure), min(max(rise, -_LIFTS), _LIFTS))
        roll, pitch, yaw = state.rpy
        tilt = state.heading @ np.array([-roll, -pitch, wrapped(facing - yaw)])
        turn = np.array([0.0, 0.0, self.command.turn]) - state.angular_velocity
        position, velocity, acceleration = state.feet.copy(), np.zeros((2, 3)), np.zeros((2, 3))
        for i in np.flatnonzero(~self.stance):
            position[i], velocity[i], acceleration[i] = self._swings.reference
        felt = np.where(touch.valid, touch.pressing > self.steps.touch, self.stance)
        return Plan(
            self.stance.copy(), self.standing.copy(), felt, position, velocity, acceleration, linear,
            _TILT[0] * tilt + _TILT[1] * turn, facing,
        )  # fmt: skip


def _yaw(rotation: Floats) -> float:
    return math.atan2(rotation[1, 0], rotation[0, 0])
