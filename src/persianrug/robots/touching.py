"""How a robot feels: by the truth, or by a skin whose frames go through a code and over a bus."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from persianrug._support import checks
from persianrug.robots.contacts import ContactSensor, TrueContacts
from persianrug.robots.spec import RobotSpec

SKINS = ("stiff", "soft", "truth")
# Smaller codes say nothing of what is felt, and their law fails.
_SMALLEST = 1 / 256
# Of a bus, in seconds: what is later is of no use to anybody.
_LONGEST = 1.0


@dataclass(frozen=True)
class Touch:
    """What a robot feels with.

    Parameters
    ----------
    skin : str
        "stiff" or "soft", or "truth" for contacts as they are.
    ratio : float
        Numbers of a code for one of a frame, from 1/256 to 1.
    packet_loss : float in [0, 1)
        The share of packets that do not arrive.
    delay : float
        Of the bus, in seconds.
    rate : float
        Frames a second.
    """

    skin: str = "stiff"
    ratio: float = 0.0625
    packet_loss: float = 0.05
    delay: float = 0.008
    rate: float = 100.0

    def __post_init__(self) -> None:
        checks.one_of("skin", self.skin, SKINS)
        allowed = f"a number from {_SMALLEST:g} to 1"
        if not _SMALLEST <= checks.finite("ratio", self.ratio, allowed) <= 1:
            raise ValueError(f"ratio is {checks.shown(self.ratio)}; allowed: {allowed}")
        allowed = "a number in [0, 1)"
        loss = checks.finite("packet_loss", self.packet_loss, allowed)
        if not 0 <= loss < 1:
            raise ValueError(f"packet_loss is {loss:g}; allowed: {allowed}")
        if checks.not_negative("delay", self.delay) > _LONGEST:
            raise ValueError(f"delay is {self.delay:g}; allowed: seconds, up to {_LONGEST:g}")
        checks.positive("rate", self.rate)

    def sensor(self, model: mujoco.MjModel, spec: RobotSpec, seed: int) -> ContactSensor:
        """A sensor of the robot in a scene."""
        if self.skin == "truth":
            return TrueContacts(model, spec.patches)
        from persianrug.robots.skin_contacts import SkinContacts

        return SkinContacts(
            model,
            spec.patches,
            codes=spec.codes,
            ratio=self.ratio,
            rate=self.rate,
            packet_loss=self.packet_loss,
            delay=self.delay,
            skin=self.skin,
            seed=seed,
        )
