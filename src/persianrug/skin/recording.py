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
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks, files
from persianrug._support.extras import installing
from persianrug.skin import ros
from persianrug.skin.contacts import Contact
from persianrug.skin.estimate import Estimate
from persianrug.skin.layout import Layout
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
# What is lost at most where a process is killed: so many bytes, or seconds. The frame that ends a chunk waits
# until that is packed, longer where it is larger.
_CHUNK_BYTES, _CHUNK_SECONDS = 1 << 18, 1.0
# Of the time of ROS 2.
_MOST_SECONDS = 2**31 - 1


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


class RecordingWriter:
    """Writes frames to an MCAP file as they are decoded; use it in a `with` statement, or close it.

    A process that is killed leaves a file that ends early, and is read up to its last second or megabyte.

    Parameters
    ----------
    path : str or path
        A file that ends in .mcap; what was there is lost.
    layout : Layout

    Raises
    ------
    ValueError
        If the file cannot be written, or the extra `skin` is missing.
    OSError
        Then, and on every write, if the disk is full; what was written before can be read.
    """

    def __init__(self, path: str | os.PathLike[str], layout: Layout) -> None:
        try:
            from mcap.writer import Writer
        except ImportError:
            raise ValueError(f"recordings take the package mcap; allowed: after {installing('skin')}") from None
        self.layout = checks.instance("layout", layout, Layout)
        if not os.fspath(checks.path("path", path)).lower().endswith(".mcap"):
            raise ValueError(f"path is {checks.shown(os.fspath(path))}; allowed: a name that ends in .mcap")
        self.path = files.check_writable(path)
        shape = (layout.n_taxels, layout.axes)
        self._taxels = ros.ArrayPacker(shape, ("taxel", "axis"))
        self._contacts = ros.PointPacker(CONTACT, len(layout.patches), "skin")
        self._codes: dict[int, ros.ArrayPacker] = {}
        self._channels: dict[str, int] = {}
        self.frames, self._waiting, self._flushed, self._whole = 0, 0, 0, True
        self._file = self.path.open("wb")
        # Chunks end where this says, between frames; the writer's own size is never reached.
        self._writer = Writer(self._file, chunk_size=1 << 62, enable_data_crcs=True)
        with self._told():
            self._writer.start(profile="ros2", library="persianrug")
            self._file.flush()

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
        if self._file.closed:
            raise ValueError(f"recording {self.path} is closed; allowed: frames before that")
        seconds = checks.not_negative("time", time)
        if seconds > _MOST_SECONDS:
            raise ValueError(f"time is {seconds:.6g} s; allowed: up to {_MOST_SECONDS} s")
        stamp = round(seconds * 1e9)
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
        with self._told():
            self._whole = False
            if self.frames == 0:
                self._flushed = stamp
                for topic, content in pack_layout(self.layout, stamp):
                    self._add(topic, content, stamp)
            for topic, content in messages:
                self._add(topic, content, stamp)
            self.frames += 1
            self._whole = True
            if self._waiting >= _CHUNK_BYTES or abs(stamp - self._flushed) >= _CHUNK_SECONDS * 1e9:
                self._writer.flush()  # type: ignore[no-untyped-call]
                self._waiting, self._flushed = 0, stamp

    def close(self) -> None:
        """End the recording; nothing where it has ended."""
        if not self._file.closed:
            with self._told():
                # An interrupt within a frame leaves the file as a killed process does.
                if self._whole:
                    self._writer.finish()  # type: ignore[no-untyped-call]
                self._file.close()

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _code_packer(self, size: int) -> ros.ArrayPacker:
        if size not in self._codes:
            self._codes[size] = ros.ArrayPacker((size,), ("entry",), ros.INTEGERS)
        return self._codes[size]

    def _add(self, topic: str, content: bytes, stamp: int) -> None:
        if topic not in self._channels:
            name = _SCHEMAS[topic]
            schema = self._writer.register_schema(name, "ros2msg", ros.DEFINITIONS[name].encode())
            self._channels[topic] = self._writer.register_channel(topic, "cdr", schema)
        sequence = self.frames % (1 << 32)
        self._writer.add_message(self._channels[topic], stamp, content, stamp, sequence)
        self._waiting += len(content)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever the disk refuses ends the recording, and says so."""
        try:
            yield
        except OSError as error:
            # What waits in its buffer is refused again.
            with contextlib.suppress(OSError):
                self._file.close()
            said = f"{error.strerror}: recording {self.path} ends before frame {self.frames} of it"
            raise OSError(error.errno, said) from None


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
