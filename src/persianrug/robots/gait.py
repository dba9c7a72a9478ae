"""The gait: which feet stand, where the others go, and how the base should move.

Feet step in groups, one after the other: the pairs of a trot here. A group takes off by the clock and comes down
by touch: a foot that feels the ground early stands from then on, and one that does not searches for it downwards
while the clock waits. Footholds are placed about where the centre of mass will be (capture points; Raibert 1986).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from persianrug.robots.state import RobotState, about_z, wrapped
from persianrug.robots.swing import swing
from persianrug.robots.terrain import Terrain

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gait:
    """Numbers of a gait; metres, seconds, newtons.

    Parameters
    ----------
    groups : tuple of tuple of int
        Feet that swing together, in their order.
    period : float
        From one step of a foot to its next.
    duty : float
        The share of it in which a foot stands.
    height : float
        Of the base above the ground.
    lift : float
        How high a foot is lifted on flat ground.
    clearance : float
        Between a foot and a bar below it.
    landing : float
        A foot aims so far below where it touches first; it comes down with some speed, on lower ground too.
    descent : float
        How fast it goes down after its time, in m/s.
    touch : float
        A foot that feels so much stands.
    trip : float
        A foot in mid-swing that is pushed sideways with so much is lifted.
    reflex : float
        By how much it is lifted.
    reach : float
        A foothold is at most so far from below its hip.
    capture : float
        Footholds go out by the error of speed for so many seconds more than half a stance.
    foot : float
        The radius of a foot.
    """

    groups: tuple[tuple[int, ...], ...]
    period: float
    duty: float
    height: float
    lift: float = 0.09
    clearance: float = 0.07
    landing: float = 0.027
    descent: float = 0.5
    touch: float = 15.0
    trip: float = 30.0
    reflex: float = 0.07
    reach: float = 0.28
    capture: float = 0.06
    foot: float = 0.036

    @property
    def stance_time(self) -> float:
        """How long a foot stands."""
        return self.period * self.duty

    @property
    def swing_time(self) -> float:
        """How long a foot swings."""
        return self.period * (1 - self.duty)


@dataclass
class Command:
    """How a robot should move.

    Attributes
    ----------
    velocity : array (2,)
        In its own heading, in m/s.
    turn : float
        In rad/s.
    walking : bool
        Whether it steps.
    stopping : bool
        Whether feet that stand where they should stay there.
    """

    velocity: Floats = field(default_factory=lambda: np.zeros(2))
    turn: float = 0.0
    walking: bool = False
    stopping: bool = False


@dataclass(frozen=True, eq=False)
class FootTouch:
    """What the feet feel.

    Parameters
    ----------
    pressing : array (n_feet,)
        In newtons.
    sideways : array (n_feet,)
        The horizontal part of the force, in newtons.
    valid : bool array (n_feet,)
        Whether to believe it; a foot that is not believed goes by the clock alone.
    centre : array (n_feet, 2)
        Where it is pressed, x and y in its own frame, in metres; NaN where it is not.
    """

    pressing: Floats
    sideways: Floats
    valid: NDArray[np.bool_]
    centre: Floats


@dataclass(frozen=True, eq=False)
class Plan:
    """What should happen now; all vectors are in the frame of the world.

    Attributes
    ----------
    stance : bool array (n_feet,)
    standing : array (n_feet,)
        For how long each foot has stood, in seconds.
    felt : bool array (n_feet,)
        Whether each foot feels the ground.
    position, velocity, acceleration : array (n_feet, 3)
        Of the feet in the air.
    linear, angular : array (3,)
        Accelerations of the centre of mass (its height is the base's), and of the base.
    facing : float
        Where soles in the air should point, in rad.
    """

    stance: NDArray[np.bool_]
    standing: Floats
    felt: NDArray[np.bool_]
    position: Floats
    velocity: Floats
    acceleration: Floats
    linear: Floats
    angular: Floats
    facing: float


# Gains: of height, tilt and yaw (1/s^2, 1/s), speed (1/s), and of the place where it stands.
_HEIGHT = (80.0, 14.0)
_TILT = (np.array([120.0, 120.0, 60.0]), np.array([18.0, 18.0, 12.0]))
_SPEED = 5.0
_PLACE = (25.0, 8.0)
# Speeds are low-passed for footholds, and the ground's height for the base, with these time constants.
_SMOOTH_SPEED, _SMOOTH_GROUND = 0.05, 0.15
# It may stop with its feet so near to where they should be, and so slow.
_NEAR, _EVEN, _SLOW = 0.07, 0.03, 0.08
# A foot stands so long before it is lifted again; targets are fixed after so much of a swing; touch counts after
# so much, and a trip between these shares.
_LEAST_STANCE, _FIXED, _EARLY, _TRIPS = 0.12, 0.85, 0.6, (0.1, 0.6)
# The rate at which what is missing of the speed is added to what is aimed at (1/s), and how much is at most (m/s).
_TRIM = (0.5, 0.25)
# The clock runs faster once the speed is wrong by so much (m/s): by so much a m/s more, and at most by so much.
_HASTE = (0.25, 0.4, 0.25)
# After so many swings without ground a foot is taken to stand.
_LOST = 1.6


class GaitPlanner:
    """Steps.

    Parameters
    ----------
    gait : Gait
    hips : array (n_feet, 2)
        Where feet stand, from the base's origin, in its heading.
    terrain : Terrain

    Attributes
    ----------
    command : Command
    footholds : array (n_feet, 3)
        Where feet that are in the air should come down, and where the others were to.
    trips : int
        How often a foot was lifted because it met something.
    """

    def __init__(self, gait: Gait, hips: Floats, terrain: Terrain | None = None) -> None:
        self.gait, self.hips = gait, np.asarray(hips)
        self.terrain = terrain or Terrain()
        self.command = Command()
        n = len(self.hips)
        self.stance = np.ones(n, dtype=bool)
        self.standing = np.ones(n)
        self.trips = 0
        self._phase = 0.0
        self.footholds = np.zeros((n, 3))
        self._start, self._lifted = np.zeros((n, 3)), np.zeros(n)
        self._swinging = np.zeros(n)
        self._speed = np.zeros(2)
        self._ground = 0.0
        # Added to the speed that is commanded, so that it is reached, in the robot's heading.
        self._trim = np.zeros(2)
        self._yaw: float | None = None

    def plan(self, state: RobotState, touch: FootTouch, dt: float) -> Plan:
        """The plan of this tick, `dt` seconds after the last one."""
        if self._yaw is None:
            self._yaw = state.yaw
        self._yaw = wrapped(self._yaw + self.command.turn * dt)
        self._speed += (state.com_velocity[:2] - self._speed) * dt / _SMOOTH_SPEED
        self._trim += _TRIM[0] * dt * (self.command.velocity - state.heading[:2, :2].T @ self._speed)
        self._trim = np.clip(self._trim, -_TRIM[1], _TRIM[1]) if self.command.velocity.any() else np.zeros(2)
        felt = touch.pressing > self.gait.touch
        # Who knows nothing goes by the clock: what should stand stands, and what should land has landed.
        felt = np.where(touch.valid, felt, self.stance | (self._swinging >= self.gait.swing_time))
        if self.command.walking:
            self._take_off(state, dt)
        self.standing = np.where(self.stance, self.standing + dt, 0.0)
        references = [self._swing(i, state, touch, felt, dt) for i in range(len(self.stance))]
        position, velocity, acceleration = (np.array(part) for part in zip(*references, strict=True))
        linear, angular = self._base(state, dt)
        return Plan(
            self.stance.copy(), self.standing.copy(), felt, position, velocity, acceleration, linear, angular,
            self._yaw,
        )  # fmt: skip

    @property
    def threshold(self) -> float:
        """A foot that feels so many newtons carries."""
        return self.gait.touch

    @property
    def settled(self) -> bool:
        """Whether all feet have stood for a while."""
        return bool(self.stance.all() and self.standing.min() > 0.25)

    def _take_off(self, state: RobotState, dt: float) -> None:
        """Let the clock go on, and the feet whose time has come leave the ground."""
        late = (~self.stance & (self._swinging >= self.gait.swing_time)).any()
        if not late:
            # Who is pushed steps sooner.
            astray = float(np.hypot(*(self._wanted(state) - self._speed)))
            haste = 1 + min(_HASTE[2], _HASTE[1] * max(0.0, astray - _HASTE[0]))
            self._phase = (self._phase + haste * dt / self.gait.period) % 1.0
        rests = self.command.stopping and self._may_stop(state)
        for number, group in enumerate(self.gait.groups):
            phase = (self._phase + number / len(self.gait.groups)) % 1.0
            others_stand = all(self.stance[i] for i in range(len(self.stance)) if i not in group)
            if not phase < (1 - self.gait.duty) / 2 or not others_stand or rests:
                continue
            for i in group:
                if self.stance[i] and self.standing[i] > _LEAST_STANCE:
                    self.stance[i] = False
                    self._swinging[i], self._lifted[i] = 0.0, 0.0
                    self._start[i] = state.feet[i]

    def _may_stop(self, state: RobotState) -> bool:
        away = (state.feet[:, :2] - state.com[:2]) @ state.heading[:2, :2] - self.hips
        height = state.feet[:, 2]
        near = np.abs(away).max() < _NEAR and np.abs(height - height.mean()).max() < _EVEN
        return bool(near and np.hypot(*self._speed) < _SLOW)

    def _swing(
        self, i: int, state: RobotState, touch: FootTouch, felt: NDArray[np.bool_], dt: float
    ) -> tuple[Floats, Floats, Floats]:
        """Where foot i should be; it stands from now on if it has come down."""
        if self.stance[i]:
            return state.feet[i], np.zeros(3), np.zeros(3)
        gait = self.gait
        self._swinging[i] += dt
        progress = self._swinging[i] / gait.swing_time
        if progress < _FIXED:
            self.footholds[i] = self._foothold(i, state, gait.swing_time - self._swinging[i])
        start, target = self._start[i], self.footholds[i]
        top = max(start[2], target[2]) + gait.lift
        if bar := self.terrain.crossed(start[0], target[0]):
            top = max(top, bar + gait.foot + gait.clearance)
        meets = touch.valid[i] and touch.sideways[i] > gait.trip
        if meets and _TRIPS[0] < progress < _TRIPS[1] and not self._lifted[i]:
            self._lifted[i] = gait.reflex
            self.trips += 1
        reference = swing(start, target, top + self._lifted[i], progress, gait.swing_time, gait.descent)
        if (felt[i] and progress > _EARLY) or progress > _LOST:
            self.stance[i] = True
        return reference

    def _foothold(self, i: int, state: RobotState, left: float) -> Floats:
        """Where foot i should come down, if it has `left` seconds to go."""
        gait = self.gait
        wanted = self._wanted(state)
        middle = state.com[:2] + self._speed * left
        turned = about_z(state.yaw + self.command.turn * (left + gait.stance_time / 2))[:2, :2]
        half = gait.stance_time / 2
        away = wanted * half + (self._speed - wanted) * (half + gait.capture)
        if (size := float(np.hypot(*away))) > gait.reach:
            away *= gait.reach / size
        x, y = middle + turned @ self.hips[i] + away
        x = self.terrain.foothold(float(x))
        return np.array([x, y, self.terrain.height(x) + gait.foot - gait.landing])

    def _wanted(self, state: RobotState) -> Floats:
        """The speed (2,) in the world that is aimed at."""
        return state.heading[:2, :2] @ (self.command.velocity + self._trim)

    def _base(self, state: RobotState, dt: float) -> tuple[Floats, Floats]:
        """How the centre of mass and the base should be accelerated."""
        command, gait = self.command, self.gait
        stance = self.stance
        if stance.any():
            ground = float(state.feet[stance, 2].mean()) - gait.foot
            self._ground += (ground - self._ground) * dt / _SMOOTH_GROUND
        linear = np.zeros(3)
        if not command.walking or (command.stopping and stance.all()):
            place = state.feet[:, :2].mean(axis=0)
            linear[:2] = _PLACE[0] * (place - state.com[:2]) - _PLACE[1] * state.com_velocity[:2]
        else:
            linear[:2] = _SPEED * (self._wanted(state) - state.com_velocity[:2])
        linear[:2] = np.clip(linear[:2], -4.0, 4.0)
        height = gait.height + self._ground
        rise = _HEIGHT[0] * (height - state.position[2]) - _HEIGHT[1] * state.velocity[2]
        linear[2] = min(max(rise, -6.0), 8.0)
        roll, pitch, yaw = state.rpy
        tilt = np.array([-roll, -pitch, wrapped((self._yaw or 0.0) - yaw)])
        turn = np.array([0.0, 0.0, command.turn]) - state.angular_velocity
        return linear, _TILT[0] * (state.heading @ tilt) + _TILT[1] * turn


def trot(legs: Sequence[int] = (0, 3)) -> tuple[tuple[int, ...], ...]:
    """The groups of a trot of four feet: one pair of diagonal feet, and the other."""
    return tuple(legs), tuple(i for i in range(4) if i not in legs)
