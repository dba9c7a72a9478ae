"""What a robot feels, patch by patch, and a sensor that feels contacts as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.taxels import Patch, geoms_of_patches

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ContactReading:
    """What patches feel; all vectors are in the frame of the patch's body.

    Attributes
    ----------
    patches : tuple of str
    time : float
        When the newest of it was felt, in seconds; -inf where nothing was felt yet.
    pressing : array (P,)
        The sum of forces along the normals, in newtons.
    force : array (P, 3)
        The net force on the body, in newtons.
    centre : array (P, 3)
        The mean position, weighted with what presses, in metres; NaN where nothing presses.
    area : array (P,)
        Of what is touched, in square metres; NaN where that is not known.
    valid : bool array (P,)
        Whether to believe it.
    """

    patches: tuple[str, ...]
    time: float
    pressing: Floats
    force: Floats
    centre: Floats
    area: Floats
    valid: NDArray[np.bool_]

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Where patches of some names are in the arrays."""
        return np.array([self.patches.index(name) for name in names])


class ContactSensor(Protocol):
    """What gives a robot its readings.

    Attributes
    ----------
    patches : tuple of str
    true : ContactReading
        What presses in the tick that was sensed last, whatever is felt of it.
    """

    patches: tuple[str, ...]
    true: ContactReading

    def sense(self, data: mujoco.MjData) -> ContactReading:
        """What is felt in this tick; called once a tick, after the world went on."""
        ...


@dataclass(frozen=True, eq=False)
class Touches:
    """Contacts of patches, k in all; vectors are in the frame of the patch's body.

    Attributes
    ----------
    patch : int64 array (k,)
    place : array (k, 3)
        In metres.
    outward : array (k, 3)
        The unit vector at right angles to the surface, away from the robot.
    force : array (k, 3)
        On the robot, in newtons.
    pressing : array (k,)
        Its part against the surface, in newtons.
    """

    patch: NDArray[np.int64]
    place: Floats
    outward: Floats
    force: Floats
    pressing: Floats


class ContactForces:
    """Finds the contacts of patches in a world.

    Parameters
    ----------
    model : mujoco.MjModel
    patches : sequence of Patch
    """

    def __init__(self, model: mujoco.MjModel, patches: Sequence[Patch]) -> None:
        self.model = model
        self._patch_of_geom = np.full(model.ngeom + 1, -1, dtype=np.int64)
        for index, geoms in enumerate(geoms_of_patches(model, patches)):
            self._patch_of_geom[geoms] = index
        self._body = np.array([model.body(patch.body).id for patch in patches])

    @staticmethod
    def none() -> Touches:
        """No contact at all."""
        vectors = np.zeros((0, 3))
        return Touches(np.zeros(0, dtype=np.int64), vectors, vectors, vectors, np.zeros(0))

    def touches(self, data: mujoco.MjData) -> Touches:
        """All contacts that press, as of the last step."""
        contact = data.contact
        # Geom -1, of what is no geom, is in no patch: the last place of the table.
        patch = self._patch_of_geom[contact.geom]
        found = np.flatnonzero((patch >= 0).any(axis=1) & (contact.efc_address >= 0))
        force = np.zeros((len(found), 6))
        for row, number in zip(force, found.tolist(), strict=True):
            mujoco.mj_contactForce(self.model, data, number, row)
        pressed = force[:, 0] > 0
        found, force = found[pressed], force[pressed, :3]
        # The frame's first axis points from the first geom to the second, and the force is on the second.
        which, side = np.nonzero(patch[found] >= 0)
        sign = np.where(side == 1, 1.0, -1.0)[:, None]
        patch = patch[found][which, side]
        frame = contact.frame[found[which]].reshape(-1, 3, 3)
        body = self._body[patch]
        turned = data.xmat[body].reshape(-1, 3, 3)
        world = (force[which, None] @ frame)[:, 0]
        return Touches(
            patch,
            _turn(contact.pos[found[which]] - data.xpos[body], turned),
            _turn(-sign * frame[:, 0], turned),
            _turn(sign * world, turned),
            force[which, 0],
        )


def _turn(vectors: Floats, rotation: Floats) -> Floats:
    """Vectors (k, 3) of the world in frames of bodies (k, 3, 3)."""
    return (vectors[:, None] @ rotation)[:, 0]


class TrueContacts:
    """A sensor that feels contacts as they are, at once and without error.

    Parameters
    ----------
    model : mujoco.MjModel
        Of the whole scene.
    patches : sequence of Patch
    """

    def __init__(self, model: mujoco.MjModel, patches: Sequence[Patch]) -> None:
        self.forces = ContactForces(model, patches)
        self.patches = tuple(patch.name for patch in patches)

        self.true: ContactReading

    def sense(self, data: mujoco.MjData) -> ContactReading:
        self.true = self.reading(self.forces.touches(data), data.time)
        return self.true

    def reading(self, touches: Touches, time: float) -> ContactReading:
        """What these contacts are to the patches; their area is not known."""
        count = len(self.patches)
        pressing = np.bincount(touches.patch, touches.pressing, count).astype(np.float64)
        force, moment = np.zeros((2, count, 3))
        np.add.at(force, touches.patch, touches.force)
        np.add.at(moment, touches.patch, touches.pressing[:, None] * touches.place)
        centre = moment / np.where(pressing > 0, pressing, np.nan)[:, None]
        return ContactReading(
            self.patches, time, pressing, force, centre, np.full(count, np.nan), np.ones(count, dtype=bool)
        )
