"""Nets as files: weights as safetensors, large tables in stripes, all else as JSON with a digest over all. Nothing is ever executed.

A tensor that is largely zeros is kept as the bits that tell where it is not zero, and the values there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from mainspring.errors import MissingExtraError, RegistryError
from mainspring.models.adapters.nets.runtime import torch, unfilled
from mainspring.models.adapters.nets.tables import fill, large_tables, leave_out
from mainspring.models.large_tables import LargeTable, Lookup, OpenTables

try:
    from safetensors.torch import load as read_tensors
    from safetensors.torch import save as write_tensors
except ImportError as error:
    raise MissingExtraError("A net", "safetensors", "torch") from error

WEIGHTS = "net.safetensors"
BODY = "net.json"
FORMAT = 2
READ = (1, FORMAT)
"""Formats that are read; the first knows no large tables."""
WORTH_PACKING = 0.75
"""The share of a tensor's bytes that its packed form must not exceed."""


def to_files(kind: str, body: Mapping[str, Any], net: Any) -> dict[str, bytes]:
    """``net.safetensors`` with the weights, a file for each stripe of large tables, ``net.json`` with the rest and the digest of all."""
    large = list(large_tables(net))
    apart = {f"{table.name}.weight" for table, _ in large}
    small = [(name, one) for name, one in net.state_dict().items() if name not in apart]
    weights = write_tensors({part: value for name, one in small for part, value in _packed(name, one).items()})
    whole = {"format": FORMAT, "kind": kind, "body": body, "tables": [table.to_dict() for table, _ in large]}
    files = {WEIGHTS: weights, BODY: json.dumps({**whole, "digest": _digest(whole, weights)}, sort_keys=True).encode()}
    return files | {name: data for _, stripes in large for name, data in stripes.items()}


def read_body(kind: str, artifacts: Mapping[str, bytes]) -> dict[str, Any]:
    """The body that `to_files` wrote.

    Raises:
        RegistryError: a file is missing, truncated, altered, of another kind or format.
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
    if found[0] not in READ or found[1] != kind:
        raise RegistryError(f"{BODY}: it describes '{found[1]}' in format {found[0]}, asked for is '{kind}' in format {FORMAT}.")
    if digest != _digest(whole, artifacts[WEIGHTS]):
        raise RegistryError(f"{BODY} and {WEIGHTS} do not belong together, or one was altered. Register the version again.")
    body: dict[str, Any] = whole["body"]
    return body


def read_net(build: Callable[[], Any], artifacts: Mapping[str, bytes], tables: OpenTables | None = None) -> tuple[Any, Lookup | None]:
    """The net that ``build`` makes with the stored weights, and where to look up its large tables; None where they are in the net.

    They are looked up where ``tables`` is given and the net has some; their files are not read then.

    Raises:
        RegistryError: the weights are not this net's.
        KeyError, TypeError, ValueError: from ``build``.
        StorageError: the tables cannot be opened.
    """
    large = [LargeTable.from_dict(one) for one in json.loads(artifacts[BODY]).get("tables", [])]
    apart = tables is not None and bool(large)
    with unfilled() if apart else nullcontext():
        net = build()
    try:
        (_read_without if apart else _read_whole)(net, large, artifacts)
    except Exception as error:
        raise RegistryError(f"{WEIGHTS}: these are not this net's weights ({error}). Register the version again.") from error
    return net.eval(), tables(large) if tables is not None and apart else None


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


def _read_whole(net: Any, large: list[LargeTable], artifacts: Mapping[str, bytes]) -> None:
    for table in large:
        fill(net, table, artifacts)
    apart = {f"{table.name}.weight" for table in large}
    tables = {name: one for name, one in net.state_dict().items() if name in apart}
    net.load_state_dict(tables | _unpacked(read_tensors(artifacts[WEIGHTS]), net.state_dict()))


def _read_without(net: Any, large: list[LargeTable], artifacts: Mapping[str, bytes]) -> None:
    """Into a net for which no memory was taken yet, nor is for its large tables."""
    leave_out(net, large)
    stored = _unpacked(read_tensors(artifacts[WEIGHTS]), net.state_dict())
    net.load_state_dict({name: one.clone() for name, one in stored.items()}, assign=True)


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
            stored[name] = torch.zeros(like.shape, dtype=like.dtype)
            stored[name][torch.from_numpy(kept).view(like.shape)] = stored.pop(f"{name}:values")
    return stored


def _digest(whole: Mapping[str, Any], weights: bytes) -> str:
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode() + b"\0" + weights).hexdigest()
