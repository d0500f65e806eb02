"""A file on its way to devices: what it must hash to, who signed that, and answers that it must give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from mainspring.edge.samples import Sample
from mainspring.errors import RegistryError, StorageError
from mainspring.model_registry.signatures import Sign, Verify
from mainspring.storage.durable import replacing

_SAMPLES = 50
_SECONDS = 30.0
Load = Callable[[Path], Any]


def release(version: str, name: str, file: bytes, asked: Sequence[Sample], sign: Sign | None) -> bytes:
    """The JSON beside an exported file: its hash, up to 50 answers that it must give, and a signature over both if there is a key."""
    chosen = asked[:: max(1, len(asked) // _SAMPLES)][:_SAMPLES]
    tests = [{"request": one.request, "given": one.given, "expected": list(one.expected)} for one in chosen]
    said = {"version": version, "file": name, "sha256": hashlib.sha256(file).hexdigest(), "tests": tests}
    return json.dumps({**said, "signature": sign(_signed(said)).hex() if sign else ""}, indent=1).encode()


def fetch(address: str, current: Path, load: Load, verify: Verify) -> Any:
    """The module of a newer file, once it lies at ``current``; the one before it is kept beside it, with ``.previous``.

    ``address`` is that of the release's JSON, beside which the file lies: ``https://...``, ``file:///...``. Nothing of the file runs before
    its signature and hash are checked; nothing is replaced before it gives the answers that it must.

    Raises:
        RegistryError: the release is not signed with the key, the file is another, or answers otherwise.
        StorageError: one of them cannot be had or written.
    """
    said = _release(_read(address))
    signature = said.pop("signature")
    if not signature or not _good(verify, _signed(said), signature):
        raise RegistryError(f"Release {address}: it is not signed with the key. Export it with MAINSPRING_SIGNING_KEY set.")
    file = _read(address.rpartition("/")[0] + "/" + said["file"])
    if hashlib.sha256(file).hexdigest() != said["sha256"]:
        raise RegistryError(f"Release {address}: {said['file']} is not the file that was signed. Put it there again.")
    draft, previous = current.with_name(f"{current.stem}.next.py"), kept(current)
    try:
        draft.write_bytes(file)
        module = load(draft)
        _test(module, said, address)
        with replacing(previous) as before:
            before.write(current.read_bytes())
        with replacing(current) as now:
            now.write(file)
    except OSError as error:
        raise StorageError(f"{current} cannot be replaced: {error.strerror}. Make the folder writable.") from error
    finally:
        draft.unlink(missing_ok=True)
    return module


def kept(current: Path) -> Path:
    """Where the file before the current one is."""
    return current.with_name(f"{current.stem}.previous.py")


def _release(text: bytes) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(text)
        if set(said) == {"version", "file", "sha256", "tests", "signature"} and "/" not in said["file"]:
            return said
    except (ValueError, TypeError):
        pass
    raise RegistryError("Release: this is none. Name the address of SYSTEM.release.json, which mainspring export writes.")


def _test(module: Any, said: Mapping[str, Any], address: str) -> None:
    label = module.MODEL.document["label"]
    for test in said["tests"]:
        answer = module.answer(test["request"], test["given"])
        interval = answer.get("interval") or {}
        found = [answer[label], interval.get("low"), interval.get("high")] if answer["answered_by"] == "model" else [None] * 3
        if not all(one == other or _near(one, other) for one, other in zip(found, test["expected"], strict=True)):
            raise RegistryError(f"Release {address}: it answers {found} where {test['expected']} was signed. NumPy may differ here.")


def _near(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= 1e-9 * max(1.0, abs(other))


def _signed(said: Mapping[str, Any]) -> bytes:
    return json.dumps(["mainspring release", dict(said)], sort_keys=True).encode()


def _good(verify: Verify, message: bytes, signature: str) -> bool:
    try:
        return verify(message, bytes.fromhex(signature))
    except ValueError:
        return False


def _read(address: str) -> bytes:
    try:
        with urlopen(address, timeout=_SECONDS) as reply:
            data: bytes = reply.read()
            return data
    except (URLError, OSError, ValueError) as error:
        raise StorageError(f"{address} cannot be read ({error}). Name the address of a release.") from error
