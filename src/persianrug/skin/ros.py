"""Those ROS 2 messages that recordings are made of, as bytes (CDR, little-endian), large arrays in one piece.

Sources: the message definitions of common_interfaces (std_msgs, sensor_msgs, builtin_interfaces), and CDR of
DDS-XTypes 1.3, section 7.4: every number lies at a multiple of its size after a header of four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ENCAPSULATION = b"\x00\x01\x00\x00"

_MULTI_ARRAY = """MultiArrayLayout layout
{kind}[] data
================================================================================
MSG: std_msgs/MultiArrayLayout
MultiArrayDimension[] dim
uint32 data_offset
================================================================================
MSG: std_msgs/MultiArrayDimension
string label
uint32 size
uint32 stride
"""
_HEADER = """================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
_POINT_CLOUD = f"""std_msgs/Header header
uint32 height
uint32 width
PointField[] fields
bool is_bigendian
uint32 point_step
uint32 row_step
uint8[] data
bool is_dense
{_HEADER}================================================================================
MSG: sensor_msgs/PointField
uint8 INT8=1
uint8 UINT8=2
uint8 INT16=3
uint8 UINT16=4
uint8 INT32=5
uint8 UINT32=6
uint8 FLOAT32=7
uint8 FLOAT64=8
string name
uint32 offset
uint8 datatype
uint32 count
"""
_JOINTS = f"""std_msgs/Header header
string[] name
float64[] position
float64[] velocity
float64[] effort
{_HEADER}"""
_TRANSFORMS = f"""geometry_msgs/TransformStamped[] transforms
================================================================================
MSG: geometry_msgs/TransformStamped
std_msgs/Header header
string child_frame_id
Transform transform
================================================================================
MSG: geometry_msgs/Transform
Vector3 translation
Quaternion rotation
================================================================================
MSG: geometry_msgs/Vector3
float64 x
float64 y
float64 z
================================================================================
MSG: geometry_msgs/Quaternion
float64 x 0
float64 y 0
float64 z 0
float64 w 1
{_HEADER}"""
STRING, FLOATS, INTEGERS, POINTS, JOINTS, TRANSFORMS = (
    "std_msgs/msg/String",
    "std_msgs/msg/Float32MultiArray",
    "std_msgs/msg/Int32MultiArray",
    "sensor_msgs/msg/PointCloud2",
    "sensor_msgs/msg/JointState",
    "tf2_msgs/msg/TFMessage",
)
DEFINITIONS = {
    STRING: "string data\n",
    FLOATS: _MULTI_ARRAY.format(kind="float32"),
    INTEGERS: _MULTI_ARRAY.format(kind="int32"),
    POINTS: _POINT_CLOUD,
    JOINTS: _JOINTS,
    TRANSFORMS: _TRANSFORMS,
}
_DATATYPES = {"u1": 2, "i4": 5, "f4": 7, "f8": 8}
_TYPES = {number: np.dtype(f"<{kind}") for kind, number in _DATATYPES.items()}
# A message claims no more dimensions or fields than this.
_MOST_PARTS = 64


class _Writer:
    """Bytes of a message, as they grow."""

    def __init__(self) -> None:
        self.content = bytearray()

    def number(self, kind: str, *values: float) -> _Writer:
        size = struct.calcsize(kind)
        for value in values:
            self.content += bytes(-len(self.content) % size) + struct.pack(f"<{kind}", value)
        return self

    def stamp(self, nanoseconds: int) -> _Writer:
        # Seconds are a signed number of 32 bits in ROS: it ends in 2038.
        second, rest = divmod(nanoseconds, 10**9)
        return self.number("i", second).number("I", rest)

    def text(self, value: str) -> _Writer:
        encoded = value.encode() + b"\0"
        self.number("I", len(encoded)).content += encoded
        return self

    def bytes(self) -> bytes:
        return _ENCAPSULATION + bytes(self.content)


class _Reader:
    """Where one is in a message; ValueError where it ends too early."""

    def __init__(self, content: bytes) -> None:
        if content[:4] != _ENCAPSULATION:
            raise ValueError("a message is not little-endian CDR")
        self.content, self.place = memoryview(content)[4:], 0

    def part(self, size: int, align: int = 1) -> memoryview:
        start = self.place + -self.place % align
        if start + size > len(self.content):
            raise ValueError("a message ends too early")
        self.place = start + size
        return self.content[start : self.place]

    def number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        return struct.unpack(f"<{kind}", self.part(size, size))[0]

    def text(self) -> str:
        return bytes(self.part(self.number("I")))[:-1].decode()

    def several(self, read: Callable[[], Any]) -> list[Any]:
        count = self.number("I")
        if count > _MOST_PARTS:
            raise ValueError(f"a message claims {count} dimensions or fields; allowed: up to {_MOST_PARTS}")
        return [read() for _ in range(count)]


def pack_text(text: str) -> bytes:
    """A String."""
    return _Writer().text(text).bytes()


def unpack_text(content: bytes) -> str:
    """The text of a String; ValueError where it is none."""
    return _Reader(content).text()


def pack_joints(
    stamp: int, names: Sequence[str], position: NDArray[Any], velocity: NDArray[Any], effort: NDArray[Any]
) -> bytes:
    """A JointState at a time in nanoseconds: of each joint angle or place, speed, and torque or force."""
    message = _Writer().stamp(stamp).text("")
    message.number("I", len(names))
    for name in names:
        message.text(name)
    for values in (position, velocity, effort):
        message.number("I", len(values)).number("d", *values)
    return message.bytes()


def pack_transforms(stamp: int, parent: str, children: Sequence[str], poses: NDArray[Any]) -> bytes:
    """A TFMessage at a time in nanoseconds: places and quaternions, w first, (k, 7) of frames in their parent."""
    message = _Writer().number("I", len(children))
    for child, pose in zip(children, poses, strict=True):
        message.stamp(stamp).text(parent).text(child).number("d", *pose[:3], *pose[4:7], pose[3])
    return message.bytes()


class ArrayPacker:
    """Packs arrays of one shape as Float32MultiArray or Int32MultiArray; all but the numbers is made once.

    Parameters
    ----------
    shape : sequence of int
    labels : sequence of str
        What runs along each dimension.
    kind : str
        FLOATS or INTEGERS.
    """

    def __init__(self, shape: Sequence[int], labels: Sequence[str], kind: str = FLOATS) -> None:
        self.shape, self._dtype = tuple(shape), _dtype_of(kind)
        start = _Writer().number("I", len(self.shape))
        for place, (label, size) in enumerate(zip(labels, self.shape, strict=True)):
            start.text(label).number("I", size, int(np.prod(self.shape[place:])))
        # Where the data starts, and how much there is.
        self._start = start.number("I", 0, int(np.prod(self.shape))).bytes()

    def __call__(self, values: NDArray[Any]) -> bytes:
        """The message of an array of this shape."""
        if values.shape != self.shape:
            raise ValueError(f"an array has shape {values.shape}; allowed: {self.shape}")
        return self._start + np.ascontiguousarray(values, dtype=self._dtype).tobytes()


def unpack_array(content: bytes, kind: str = FLOATS) -> NDArray[Any]:
    """The array that ArrayPacker packed, in its shape; ValueError where it is none."""
    reader = _Reader(content)
    dimensions = reader.several(lambda: (reader.text(), reader.number("I"), reader.number("I")))
    reader.number("I")
    dtype, count = _dtype_of(kind), reader.number("I")
    values = np.frombuffer(reader.part(count * dtype.itemsize), dtype=dtype)
    return values.astype(dtype.newbyteorder("=")).reshape([size for _, size, _ in dimensions])


class PointPacker:
    """Packs points, rows of a structured array, as PointCloud2; all but time and points is made once.

    Parameters
    ----------
    dtype : dtype
        Of a point, packed, with fields x, y, z and others of 8 or 32 bits.
    count : int
        Of points.
    frame_id : str
        The name of the frame that they are in.
    """

    def __init__(self, dtype: np.dtype[Any], count: int, frame_id: str) -> None:
        self.dtype, self.count = dtype.newbyteorder("<"), count
        start = _Writer().number("i", 0).number("I", 0).text(frame_id).number("I", 1, count)
        start.number("I", len(dtype.names or ()))
        for name in self.dtype.names or ():
            kind, offset = self.dtype.fields[name][:2]  # type: ignore[index]
            start.text(name).number("I", offset).number("B", _DATATYPES[kind.str[1:]]).number("I", 1)
        size = self.dtype.itemsize
        start.number("B", 0).number("I", size, size * count, size * count)
        self._start = start.bytes()[len(_ENCAPSULATION) + 8 :]

    def __call__(self, stamp: int, points: NDArray[Any]) -> bytes:
        """The message of points at a time in nanoseconds."""
        time = _Writer().stamp(stamp).content
        return _ENCAPSULATION + time + self._start + points.astype(self.dtype, copy=False).tobytes() + b"\0"


def unpack_points(content: bytes) -> NDArray[Any]:
    """The points of a PointCloud2 as a structured array; ValueError where it is none that PointPacker packed."""
    reader = _Reader(content)
    reader.number("i"), reader.number("I"), reader.text()
    height, width = reader.number("I"), reader.number("I")
    fields = reader.several(lambda: (reader.text(), reader.number("I"), reader.number("B"), reader.number("I")))
    reader.number("B")
    step, _, size = reader.number("I"), reader.number("I"), reader.number("I")
    if not fields or any(kind not in _TYPES or count != 1 for _, _, kind, count in fields):
        raise ValueError("a message has points of other types than ours")
    dtype = np.dtype(
        {
            "names": [name for name, *_ in fields],
            "formats": [_TYPES[kind] for _, _, kind, _ in fields],
            "offsets": [offset for _, offset, _, _ in fields],
            "itemsize": step,
        }
    )
    if size != height * width * step:
        raise ValueError(f"a message has {size} bytes of {height} x {width} points of {step} bytes")
    return np.frombuffer(reader.part(size), dtype=dtype)


def _dtype_of(kind: str) -> np.dtype[Any]:
    return np.dtype("<f4" if kind == FLOATS else "<i4")
