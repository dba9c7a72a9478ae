"""Safetensors files of ours: tensors, and in the metadata a JSON text and a digest of both."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from persianrug._support import checks
from persianrug._support.files import write_whole


def write_tensors(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    config: Any,
    tensors: dict[str, Tensor],
    *,
    key: str = "config",
) -> None:
    """Write a file, whole or not at all, of this kind and version; `key` is what its metadata calls the JSON text.

    Raises
    ------
    ValueError
        If the path's folder is missing or not writable.
    """
    text = json.dumps(config, sort_keys=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": kind, "version": str(version), key: text, "sha256": digest(text, tensors)}
    write_whole(path, safetensors.torch.save(tensors, metadata))


def read_tensors(
    path: str | os.PathLike[str],
    name: str,
    kind: str,
    version: int,
    *,
    key: str = "config",
    allowed: str = "a file as written",
) -> tuple[Any, dict[str, Tensor]]:
    """What `write_tensors` wrote; `name` is what messages call the file, and `allowed` what they ask for.

    Raises
    ------
    ValueError
        If the file is missing, cannot be read, is damaged, or is of another format or version.
    """
    if not Path(checks.path("path", path)).is_file():
        raise ValueError(f"{name} file {path} is missing; allowed: {allowed}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {part: file.get_tensor(part) for part in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} file {path} cannot be read: {reason}; allowed: {allowed}") from None
    if metadata.get("format") != kind or metadata.get("version") != str(version):
        found = f"format {metadata.get('format')}, version {metadata.get('version')}"
        raise ValueError(f"{name} file {path} has {found}; allowed: format {kind}, version {version}")
    text = metadata.get(key, "")
    if metadata.get("sha256") != digest(text, tensors):
        raise ValueError(f"{name} file {path} is damaged: its digest does not fit; allowed: {allowed}")
    try:
        return json.loads(text), tensors
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} file {path} holds no {key} of this version: {error}; allowed: {allowed}"
        ) from None


def stored_kind(path: str | os.PathLike[str]) -> str | None:
    """The kind that a file of `write_tensors` says it is of, None where it cannot be read or says none.

    ValueError if the path is none.
    """
    checks.path("path", path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format")
    except (safetensors.SafetensorError, OSError, ValueError):
        return None


def digest(text: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a text, and of names, types, shapes and bytes of tensors."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
