"""Recordings of a skin: MCAP files of ROS 2 messages, which Foxglove, Rerun and ros2 bag open; and their reader.

Once, with the first frame:

    /skin/layout     PointCloud2        x, y, z, normals, tangents, area and patch of every taxel
    /skin/names      String             JSON: names of patches and bodies, axes, digest

and for every frame, all with its place in the recording as their sequence number:

    /skin/state      String             JSON: frame, expected_error, explained, heard; codes: block, exponent, bits
    /skin/taxels     Float32MultiArray  decoded forces (taxel, axis) in newtons
    /skin/contacts   PointCloud2        a point a patch: what it feels, with standard errors, and valid
    /skin/code       Int32MultiArray    one for every block of the code, where it is given
    /skin/truth      Float32MultiArray  true forces, where they are given
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks, files
from persianrug._support.extras import installing
from persianrug.skin import ros
from persianrug.skin.contacts import Contact
from persianrug.skin.estimate import Estimate
from persianrug.skin.layout import Layout
from persianrug.skin.mcap_writer import MessageWriter
from persianrug.skin.ros_skin import (
    CONTACT,
    LAYOUT,
    NAMES,
    contact_points,
    contacts_of,
    pack_layout,
    unpack_layout,
)

_KINDS = {".mcap": "an MCAP file that a RecordingWriter wrote"}
_STATE = "/skin/state"
_TAXELS, _CONTACTS, _CODE, _TRUTH = "/skin/taxels", "/skin/contacts", "/skin/code", "/skin/truth"
_SCHEMAS = {
    LAYOUT: ros.POINTS, NAMES: ros.STRING, _STATE: ros.STRING, _TAXELS: ros.FLOATS, _CONTACTS: ros.POINTS,
    _CODE: ros.INTEGERS, _TRUTH: ros.FLOATS,
}  # fmt: skip


class BlockCode(Protocol):
    """The code of a block of taxels: what a SkinEncoder gives, and what is read back."""

    @property
    def block(self) -> int: ...
    @property
    def values(self) -> NDArray[Any]: ...
    @property
    def exponent(self) -> int: ...
    @property
    def bits(self) -> int: ...


@dataclass(frozen=True, eq=False)
class RecordedCode:
    """The code of a block, as it was recorded."""

    block: int
    values: NDArray[np.int32]
    exponent: int
    bits: int


@dataclass(frozen=True, eq=False)
class Record:
    """A recorded frame; its time is in seconds, and `truth` is None where it was not recorded."""

    time: float
    frame: int
    x: NDArray[np.float32]
    expected_error: float
    explained: NDArray[np.bool_]
    heard: NDArray[np.bool_]
    contacts: list[Contact]
    codes: list[RecordedCode]
    truth: NDArray[np.float32] | None


class RecordingWriter(MessageWriter):
    """Writes frames to an MCAP file as they are decoded; use it in a `with` statement, or close it.

    Messages of other topics may be added between frames; the first frame comes before all of them. A process that
    is killed leaves a file that ends early, and is read up to its last second or megabyte.

    Parameters
    ----------
    path : str or path
        A file that ends in .mcap; what was there is lost.
    layout : Layout
    file : open file, optional
        To write to instead, which is the caller's to close, and to rename to the path.

    Raises
    ------
    ValueError
        If the file cannot be written, or the extra `skin` is missing.
    OSError
        Then, and on every write, if the disk is full; what was written before can be read.
    """

    def __init__(self, path: str | os.PathLike[str], layout: Layout, file: BinaryIO | None = None) -> None:
        self.layout = checks.instance("layout", layout, Layout)
        super().__init__(path, file)
        shape = (layout.n_taxels, layout.axes)
        self._taxels = ros.ArrayPacker(shape, ("taxel", "axis"))
        self._contacts = ros.PointPacker(CONTACT, len(layout.patches), "skin")
        self._codes: dict[int, ros.ArrayPacker] = {}
        self.frames = 0

    def write(
        self,
        time: float,
        estimate: Estimate,
        contacts: Sequence[Contact],
        code: Sequence[BlockCode] = (),
        truth: NDArray[Any] | None = None,
    ) -> None:
        """Add a frame.

        Parameters
        ----------
        time : float
            In seconds, from 0 to 2^31.
        estimate : Estimate
        contacts : sequence of Contact
            One a patch, as a ContactTracker gives them.
        code : sequence of codes
            Of each block, with block, values, exponent and bits.
        truth : array (n_taxels, axes), optional
            The true forces, where they are known.

        Raises
        ------
        ValueError
            If something has another size than the layout says, or the recording is closed.
        OSError
            If the disk is full.
        """
        stamp = self.stamp(time)
        if [contact.patch for contact in contacts] != list(self.layout.patches):
            raise ValueError(f"contacts are {len(contacts)}; allowed: one for each of the layout's "
                             f"{len(self.layout.patches)} patches, in its order")  # fmt: skip
        state = {
            "frame": estimate.frame,
            "expected_error": float(estimate.expected_error),
            "explained": estimate.explained.tolist(),
            "heard": estimate.heard.tolist(),
            "codes": [{"block": one.block, "exponent": one.exponent, "bits": one.bits} for one in code],
        }
        # All that can be wrong is, before anything is written.
        messages = [
            (_STATE, ros.pack_text(json.dumps(state))),
            (_TAXELS, self._taxels(estimate.x)),
            (_CONTACTS, self._contacts(stamp, contact_points(contacts))),
            *((_CODE, self._code_packer(len(one.values))(one.values)) for one in code),
        ]
        if truth is not None:
            messages.append((_TRUTH, self._taxels(truth)))
        if self.frames == 0:
            messages = [*pack_layout(self.layout, stamp), *messages]
        self.add([(topic, _SCHEMAS[topic], content) for topic, content in messages], stamp, self.frames)
        self.frames += 1

    def _cut(self) -> str:
        return f"ends before frame {self.frames} of it"

    def _code_packer(self, size: int) -> ros.ArrayPacker:
        if size not in self._codes:
            self._codes[size] = ros.ArrayPacker((size,), ("entry",), ros.INTEGERS)
        return self._codes[size]


class RecordingReader:
    """Reads a recording; each iteration gives its Records from the first on.

    Attributes
    ----------
    layout : Layout
    complete : bool
        Whether the last iteration came to an end that the writer made; a killed one leaves a file without.

    Raises
    ------
    ValueError
        If the file is no recording, or ends before its layout does. While it is iterated, if it is damaged: then
        the Records before are right.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            from persianrug.skin.mcap_chunks import Chunks
        except ImportError:
            raise ValueError(f"recordings take the package mcap; allowed: after {installing('skin')}") from None
        self.path, self._chunks, self.complete = Path(path), Chunks, False
        with (
            files.untrusted("recording", path, _KINDS) as target,
            contextlib.closing(iter(Chunks(target))) as chunks,
        ):
            first = next(chunks, None)
            if first is None:
                raise ValueError("it ends before its first frames")
            self.layout = unpack_layout({one.topic: one.data for one in first if one.topic in (LAYOUT, NAMES)})

    def __iter__(self) -> Iterator[Record]:
        chunks = self._chunks(self.path)
        count = 0
        self.complete = False
        with contextlib.closing(iter(chunks)) as parts:
            while True:
                with files.untrusted("recording", self.path, _KINDS):
                    messages = next(parts, None)
                    if messages is None:
                        break
                    records = []
                    own = (one for one in messages if _SCHEMAS.get(one.topic) == one.schema)
                    for sequence, group in groupby(own, key=lambda one: one.sequence):
                        if sequence != count % (1 << 32):
                            raise ValueError(f"frame {count} of it is missing")
                        records.append(self._record(list(group)))
                        count += 1
                yield from records
        self.complete = chunks.complete

    def _record(self, messages: list[Any]) -> Record:
        parts = {one.topic: one.data for one in messages}
        if missing := [topic for topic in (_STATE, _TAXELS, _CONTACTS) if topic not in parts]:
            raise ValueError(f"a frame has no message {missing[0]}")
        state = json.loads(ros.unpack_text(parts[_STATE]))
        values = [ros.unpack_array(one.data, ros.INTEGERS) for one in messages if one.topic == _CODE]
        codes = [
            RecordedCode(int(one["block"]), value, int(one["exponent"]), int(one["bits"]))
            for one, value in zip(state["codes"], values, strict=True)
        ]
        points = ros.unpack_points(parts[_CONTACTS])
        if len(points) != len(self.layout.patches):
            raise ValueError(f"a frame has {len(points)} contacts; allowed: {len(self.layout.patches)}")
        return Record(
            messages[0].time / 1e9,
            int(state["frame"]),
            self._frame(parts[_TAXELS]),
            float(state["expected_error"]),
            np.array(state["explained"], dtype=bool),
            np.array(state["heard"], dtype=bool),
            contacts_of(points, self.layout.patches),
            codes,
            self._frame(parts[_TRUTH]) if _TRUTH in parts else None,
        )

    def _frame(self, content: bytes) -> NDArray[np.float32]:
        x = ros.unpack_array(content)
        if x.shape != (self.layout.n_taxels, self.layout.axes):
            raise ValueError(f"a frame has shape {x.shape}; allowed: {(self.layout.n_taxels, self.layout.axes)}")
        return x
