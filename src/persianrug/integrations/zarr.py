"""A Zarr codec that stores arrays as linear sketches, chunk by chunk.

    codec = SketchCodec.of(sketcher.sketch_)
    array = zarr.create_array(
        store, shape=X.shape, chunks=(256, X.shape[1]), dtype="float32", serializer=codec, compressors=None
    )
    array[:] = X
    array[10:20]  # estimates, whose loss was known before

The last axis has the features, all others are rows. A chunk is stored as the codes of its rows, floats or packed
bits, little-endian, and 16 bytes: BLAKE2b of these, whose key is the digest of the codec, personalised by the type
of the array ("<f4" or "<f8"). The sketch is in zarr.json, so that arrays open wherever persianrug is installed.

What is read is an estimate, and encoding that again loses more. Without compressors, writing some rows of a chunk
leaves the codes of others as they are, and so does appending; rows of which only some features are written are
decoded and encoded anew. With compressors that happens to all rows of a chunk of which some are written: there,
write whole chunks.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.extras import installing
from persianrug._support.json import pack, packed, unpack, unpacked
from persianrug.sketches.codes import Codes, Mixture, digest
from persianrug.sketches.rug_layout import Layout
from persianrug.sketches.sketch import Sketch

try:
    from zarr.abc.codec import (
        ArrayBytesCodec,
        ArrayBytesCodecPartialDecodeMixin,
        ArrayBytesCodecPartialEncodeMixin,
    )
    from zarr.registry import register_codec
except ImportError:
    raise ImportError(f"zarr is not installed; allowed: {installing('zarr')}") from None

if TYPE_CHECKING:
    # Of Zarr's own modules, which are no part of its interface.
    from zarr.abc.store import ByteGetter, ByteSetter
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer
    from zarr.core.chunk_grids import ChunkGrid
    from zarr.core.dtype.wrapper import TBaseDType, TBaseScalar, ZDType

_NAME, _VERSION = "persianrug.sketch", 1
_KEYS = {"version", "encoder", "source", "bits", "decoder", "step", "centre", "noise", "dithered", "covariance"}
# What arrays do not have that were made before codes were dithered.
_NEWER = {"dithered", "covariance"}
_SEAL = 16
_TYPES = ("float32", "float64")
# Levels that agree so far are the same ones, computed on another machine.
_SAME = 1e-6

_ALLOWED = "one that SketchCodec.of made"
# What reading a configuration of no sketch raises.
_NONE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


class SketchCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin, ArrayBytesCodecPartialEncodeMixin):
    """The serializer of a Zarr array of format 3 whose rows are stored as sketches; `of` makes it.

    Parameters
    ----------
    configuration : dict
        What zarr.json has of it: the recipe of the sketch and the levels that codes are rounded to.

    Attributes
    ----------
    sketch : Sketch
        What encodes and decodes.

    Raises
    ------
    ValueError
        If the configuration is of another version, or of no sketch.
    """

    is_fixed_size = True

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        version = configuration.get("version") if isinstance(configuration, Mapping) else None
        if version != _VERSION:
            raise ValueError(f"version of codec {_NAME} is {version!r}; allowed: {_VERSION}")
        self.configuration = dict(configuration)
        try:
            self._read()
            self._key = bytes.fromhex(digest(self.configuration))
        except _NONE as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"configuration of codec {_NAME} is of no sketch: {reason}; allowed: {_ALLOWED}"
            ) from None

    def _read(self) -> None:
        recipe = self.configuration
        if not _KEYS - _NEWER <= recipe.keys() <= _KEYS:
            raise ValueError(f"it has {sorted(recipe)}")
        # With as many numbers as there are features, so that no small file makes a large array.
        self.sketch = Sketch.from_recipe(unpacked(recipe))
        rug = self.sketch.rug
        if self.sketch.source.n_sparse != rug.n_sparse:
            raise ValueError(f"its source has {self.sketch.source.n_sparse} features of {rug.n_sparse}")
        rounded = self.sketch.bits is not None
        self._step = (checks.positive if rounded else checks.not_negative)("step", recipe["step"])
        self._centre = np.asarray(unpack(recipe["centre"]), dtype=np.float64)
        if self._centre.shape != ((rug.n_dense,) if rounded else (0,)):
            raise ValueError("its centre has another size")
        self._mixture = Mixture(noise=checks.not_negative("noise", recipe["noise"]))

    @classmethod
    def of(cls, sketch: Sketch) -> Self:
        """The codec of a sketch.

        Raises
        ------
        ValueError
            If its rug is knotted, or its decoder takes all features to be alike, as topk does.
        """
        source = sketch.source.repeated(sketch.rug.n_sparse)
        sketch = Sketch.from_recipe({**sketch.recipe(), "source": source.recipe()})
        recipe, quantiser = sketch.recipe(), sketch.quantiser
        return cls(
            {
                **packed(recipe),
                "version": _VERSION,
                "step": 0.0 if quantiser is None else quantiser.step,
                "centre": pack(np.zeros(0) if quantiser is None else sketch.middle),
                "noise": 0.0 if quantiser is None else quantiser.variance,
            }
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        if data.get("name") != _NAME:
            raise ValueError(f"name of the codec is {data.get('name')!r}; allowed: {_NAME!r}")
        return cls(data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        return {"name": _NAME, "configuration": self.configuration}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SketchCodec) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.configuration,)

    def __repr__(self) -> str:
        return f"SketchCodec({self.sketch.rug}, bits={self.sketch.bits}, decoder={self.sketch.decoder!r})"

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        self._check(array_spec.shape, array_spec.dtype)
        fill = float(array_spec.fill_value)
        # What is missing of a chunk is encoded as this.
        if not math.isfinite(fill) or (fill < 0 and not self.sketch.source.signed):
            allowed = "a finite number" if self.sketch.source.signed else "a finite number >= 0"
            raise ValueError(f"fill_value is {fill:g}; allowed: {allowed}")
        return self

    def validate(
        self, *, shape: tuple[int, ...], dtype: ZDType[TBaseDType, TBaseScalar], chunk_grid: ChunkGrid
    ) -> None:
        self._check(shape, dtype)
        chunks = chunk_grid.chunk_shape  # type: ignore[attr-defined]
        if chunks[-1] != shape[-1]:
            raise ValueError(f"chunks is {chunks}; allowed: whole rows, (..., {shape[-1]})")

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:  # noqa: ARG002
        return _rows(chunk_spec) * self._layout(_dtype(chunk_spec.dtype)).row_bytes + _SEAL

    def codes(self, chunk: bytes, dtype: str = "float32") -> Codes:
        """The codes of a stored chunk, that add up with others of the same rug; `sketch.decode` reads them.

        Parameters
        ----------
        chunk : bytes
            As they are without compressors or shards.
        dtype : "float32" or "float64"
            That of the array.

        Raises
        ------
        ValueError
            If the chunk is damaged, or of another codec or dtype.
        """
        layout = self._layout(np.dtype(checks.one_of("dtype", dtype, _TYPES)))
        return self._codes(self._opened(chunk, layout), layout)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        content = await asyncio.to_thread(self._encode, chunk_data.as_numpy_array(), chunk_spec)
        return chunk_spec.prototype.buffer.from_bytes(content)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        array = await asyncio.to_thread(self._decode, chunk_data.to_bytes(), (), chunk_spec)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(array)

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        chunk = await byte_getter.get(prototype=chunk_spec.prototype)
        if chunk is None:
            return None
        array = await asyncio.to_thread(self._decode, chunk.to_bytes(), selection, chunk_spec)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(array)

    async def _encode_partial_single(
        self, byte_setter: ByteSetter, chunk_array: NDBuffer, selection: Any, chunk_spec: ArraySpec
    ) -> None:
        marks = _marks(selection, chunk_spec)
        stored = None if marks.all() else await byte_setter.get(prototype=chunk_spec.prototype)
        content = await asyncio.to_thread(
            self._merge, stored, chunk_array.as_numpy_array(), selection, marks, chunk_spec
        )
        if content is None:
            await byte_setter.delete()
        else:
            await byte_setter.set(chunk_spec.prototype.buffer.from_bytes(content))

    def _encode(self, array: NDArray[Any], spec: ArraySpec) -> bytes:
        layout = self._layout(_dtype(spec.dtype))
        return self._sealed(self._packed(array.reshape(_rows(spec), -1), layout), layout)

    def _decode(self, chunk: bytes, selection: Any, spec: ArraySpec) -> NDArray[Any]:
        """What a selection has of a chunk; only its rows are decoded."""
        layout = self._layout(_dtype(spec.dtype))
        chosen = _marks(selection, spec).any(axis=1)
        body = self._opened(chunk, layout, _rows(spec))
        array = np.empty((_rows(spec), spec.shape[-1]), dtype=_dtype(spec.dtype))
        array[chosen] = self.sketch.decode(self._codes(body[chosen], layout))
        return np.asarray(array.reshape(spec.shape)[selection])

    def _merge(
        self,
        stored: Buffer | None,
        values: NDArray[Any],
        selection: Any,
        marks: NDArray[np.bool_],
        spec: ArraySpec,
    ) -> bytes | None:
        """The chunk with values at a selection, None if it holds nothing but the fill value."""
        layout = self._layout(_dtype(spec.dtype))
        touched, whole = marks.any(axis=1), marks.all(axis=1)
        flat = np.full(marks.shape, spec.fill_value, dtype=_dtype(spec.dtype))
        array = flat.reshape(spec.shape)
        if stored is None:
            touched = np.ones_like(touched)
            body = np.empty((len(flat), layout.row_bytes), dtype=np.uint8)
        else:
            body = self._opened(stored.to_bytes(), layout, len(flat))
            flat[touched & ~whole] = self.sketch.decode(self._codes(body[touched & ~whole], layout))
        # An axis of length 1 may be missing of the values.
        array[selection] = values if values.ndim == 0 else values.reshape(array[selection].shape)
        body[touched] = self._packed(flat[touched], layout)
        if not spec.config.write_empty_chunks and (array == spec.fill_value).all():
            # Rows that were not touched are so too if their codes are.
            fill = np.full((1, spec.shape[-1]), spec.fill_value, dtype=flat.dtype)
            if (body == self._packed(fill, layout)).all():
                return None
        return self._sealed(body, layout)

    def _packed(self, rows: NDArray[Any], layout: Layout) -> NDArray[np.uint8]:
        """Rows as the bytes of their codes, (rows, row_bytes)."""
        quantiser = self.sketch.quantiser
        if quantiser is not None and not math.isclose(quantiser.step, self._step, rel_tol=_SAME):
            raise ValueError(f"step of codec {_NAME} is {self._step:g}; allowed in writing: {quantiser.step:g}")
        content = layout.pack(
            np.asarray(self.sketch.encode(rows.astype(rows.dtype.newbyteorder("="), copy=False)))
        )
        return np.frombuffer(content, dtype=np.uint8).reshape(len(rows), layout.row_bytes)

    def _sealed(self, body: NDArray[np.uint8], layout: Layout) -> bytes:
        content = body.tobytes()
        return content + self._seal(content, layout)

    def _opened(self, chunk: bytes, layout: Layout, rows: int | None = None) -> NDArray[np.uint8]:
        """The bytes of the rows of a chunk, (rows, row_bytes), if its checksum fits."""
        body = chunk[:-_SEAL]
        whole = len(body) % layout.row_bytes == 0 and rows in (None, len(body) // layout.row_bytes)
        if not whole or self._seal(body, layout) != chunk[-_SEAL:]:
            raise ValueError("chunk is damaged: its checksum does not fit; allowed: a chunk that this codec wrote")
        return np.frombuffer(bytearray(body), dtype=np.uint8).reshape(-1, layout.row_bytes)

    def _seal(self, content: bytes, layout: Layout) -> bytes:
        return blake2b(content, digest_size=_SEAL, key=self._key, person=layout.dtype.str.encode()).digest()

    def _codes(self, body: NDArray[np.uint8], layout: Layout) -> Codes:
        return Codes(layout.unpack(body.tobytes()), self.sketch.rug, self._mixture, self.sketch.bits)

    def _layout(self, dtype: np.dtype[Any]) -> Layout:
        little = dtype.newbyteorder("<").str
        return Layout(self.sketch.rug.n_dense, little, self.sketch.bits, self._step, self._centre)

    def _check(self, shape: tuple[int, ...], dtype: ZDType[TBaseDType, TBaseScalar]) -> None:
        """ValueError unless an array or a chunk is of rows of the features."""
        if shape[-1:] != (self.sketch.rug.n_sparse,):
            raise ValueError(f"shape of array or chunks is {shape}; allowed: (..., {self.sketch.rug.n_sparse})")
        native = dtype.to_native_dtype()
        if native.kind != "f" or native.itemsize not in (4, 8):
            raise ValueError(f"dtype is {native}; allowed: {', '.join(_TYPES)}")


def _dtype(dtype: ZDType[TBaseDType, TBaseScalar]) -> np.dtype[Any]:
    return dtype.to_native_dtype().newbyteorder("=")


def _rows(spec: ArraySpec) -> int:
    return math.prod(spec.shape[:-1])


def _marks(selection: Any, spec: ArraySpec) -> NDArray[np.bool_]:
    """Whether a selection has an entry of a chunk, (rows, n_sparse)."""
    marks = np.zeros(spec.shape, dtype=bool)
    marks[selection] = True
    return marks.reshape(_rows(spec), -1)


register_codec(_NAME, SketchCodec)
