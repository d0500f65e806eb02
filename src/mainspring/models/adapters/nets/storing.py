"""Nets as files: weights as safetensors, all else as JSON with a digest over both. Nothing in them is ever executed.

A tensor that is largely zeros is kept as the bits that tell where it is not zero, and the values there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mainspring.errors import MissingExtraError, RegistryError
from mainspring.models.adapters.nets.runtime import torch

try:
    from safetensors.torch import load as read_tensors
    from safetensors.torch import save as write_tensors
except ImportError as error:
    raise MissingExtraError("A net", "safetensors", "torch") from error

WEIGHTS = "net.safetensors"
BODY = "net.json"
FORMAT = 1
WORTH_PACKING = 0.75
"""The share of a tensor's bytes that its packed form must not exceed."""


def to_files(kind: str, body: Mapping[str, Any], net: Any) -> dict[str, bytes]:
    """``net.safetensors`` with the weights and ``net.json`` with ``body``, the kind and the digest of both."""
    weights = write_tensors({name: part for key, one in net.state_dict().items() for name, part in _packed(key, one).items()})
    whole = {"format": FORMAT, "kind": kind, "body": body}
    return {WEIGHTS: weights, BODY: json.dumps({**whole, "digest": _digest(whole, weights)}, sort_keys=True).encode()}


def read_body(kind: str, artifacts: Mapping[str, bytes]) -> dict[str, Any]:
    """The body that `to_files` wrote.

    Raises:
        RegistryError: a file is missing, truncated, altered, of another kind or a newer format.
    """
    missing = {WEIGHTS, BODY} - set(artifacts)
    if missing:
        raise RegistryError(f"A net's files lack {', '.join(sorted(missing))}. Register the version again from its training run.")
    try:
        whole = json.loads(artifacts[BODY])
        digest = whole.pop("digest")
        found = (whole["format"], whole["kind"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"{BODY}: this is not a net's description. Register the version again from its training run.") from error
    if found != (FORMAT, kind):
        raise RegistryError(f"{BODY}: it describes '{found[1]}' in format {found[0]}, asked for is '{kind}' in format {FORMAT}.")
    if digest != _digest(whole, artifacts[WEIGHTS]):
        raise RegistryError(f"{BODY} and {WEIGHTS} do not belong together, or one was altered. Register the version again.")
    body: dict[str, Any] = whole["body"]
    return body


def read_weights(net: Any, artifacts: Mapping[str, bytes]) -> None:
    """Put the stored weights into a net of the same build.

    Raises:
        RegistryError: they are not this net's.
    """
    try:
        net.load_state_dict(_unpacked(read_tensors(artifacts[WEIGHTS]), net.state_dict()))
    except Exception as error:
        raise RegistryError(f"{WEIGHTS}: these are not this net's weights ({error}). Register the version again.") from error
    net.eval()


def check_columns(stored: tuple[str, ...], declared: tuple[str, ...]) -> None:
    """Refuse a net that was trained on other columns.

    Raises:
        RegistryError: names or their order differ.
    """
    if stored != declared:
        raise RegistryError(
            f"{BODY}: the net was trained on {len(stored)} columns ({', '.join(stored)}), declared are {len(declared)} "
            f"({', '.join(declared)}). It belongs to another system."
        )


def _packed(name: str, tensor: Any) -> dict[str, Any]:
    dense = tensor.contiguous()
    if dense.ndim < 2:
        return {name: dense}
    kept = dense != 0
    packed = {f"{name}:kept": torch.from_numpy(np.packbits(kept.numpy())), f"{name}:values": dense[kept]}
    return packed if sum(one.nbytes for one in packed.values()) <= WORTH_PACKING * dense.nbytes else {name: dense}


def _unpacked(stored: dict[str, Any], build: Mapping[str, Any]) -> dict[str, Any]:
    for name, like in build.items():
        if f"{name}:kept" in stored:
            kept = np.unpackbits(stored.pop(f"{name}:kept").numpy(), count=like.numel()).astype(np.bool_)
            stored[name] = torch.zeros_like(like)
            stored[name][torch.from_numpy(kept).view(like.shape)] = stored.pop(f"{name}:values")
    return stored


def _digest(whole: Mapping[str, Any], weights: bytes) -> str:
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode() + b"\0" + weights).hexdigest()
