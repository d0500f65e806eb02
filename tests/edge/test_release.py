"""A model replaced under use: only by one that is signed, whole and answers as it must; the one before it comes back when it fails."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from delivery import build, system
from mainspring.edge.client import EdgeClient, Narrower
from mainspring.edge.exporting import embed, write
from mainspring.edge.release import kept
from mainspring.errors import RegistryError, StorageError
from mainspring.model_registry.adapters.ed25519 import signer, verifier
from mainspring.model_registry.registry import Registry
from mainspring.model_registry.signatures import Verify
from mainspring.storage.tables import Tables

GOOD: dict[str, Any] = {"drive": "x", "sent_at": "2025-02-10T12:00:00Z", "depot": "north", "km": 12.5}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(folder / "key.pem")], check=True)
    subprocess.run(["openssl", "pkey", "-in", str(folder / "key.pem"), "-pubout", "-out", str(folder / "public.pem")], check=True)
    return folder


@pytest.fixture(scope="module")
def exported(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2, in a folder each."""
    folder = tmp_path_factory.mktemp("releases")
    space = build(folder / "space", versions=2)
    registry = Registry(space.registry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAINSPRING_SIGNING_KEY", str(keys / "key.pem"))
        for number in ("1", "2"):
            done = embed(system, registry, Tables(space.tables), registry.resolve("delivery", number), "python")
            write(folder / number, done.files)
    registry.close()
    return folder


@pytest.fixture
def verify(keys: Path) -> Verify:
    return verifier(keys / "public.pem")


@pytest.fixture
def device(exported: Path, tmp_path: Path) -> EdgeClient:
    shutil.copy(exported / "1" / "delivery.py", tmp_path)
    return EdgeClient(tmp_path / "delivery.py", "http://localhost:1", confident=Narrower(1e9), log=tmp_path / "answers")


@pytest.fixture
def newer(exported: Path, tmp_path: Path) -> Path:
    """A release of version 2 that a test may spoil."""
    return Path(shutil.copytree(exported / "2", tmp_path / "newer"))


def address(folder: Path) -> str:
    return (folder / "delivery.release.json").as_uri()


def test_a_newer_version_answers_and_the_one_before_comes_back(device: EdgeClient, newer: Path, verify: Verify, tmp_path: Path) -> None:
    assert device.answer(GOOD).answer["version"] == "model:delivery:1"
    assert device.update(address(newer), verify) == "model:delivery:2"
    assert device.answer(GOOD).answer["version"] == "model:delivery:2"
    again = EdgeClient(tmp_path / "delivery.py", "http://localhost:1", confident=Narrower(1e9), log=tmp_path / "other")
    assert again.version == "model:delivery:2"
    assert again.roll_back() == "model:delivery:1"
    assert again.answer(GOOD).answer["version"] == "model:delivery:1"
    with pytest.raises(RegistryError, match="no file before it"):
        again.roll_back()
    again.close()
    device.close()


def spoil_file(folder: Path) -> None:
    (folder / "delivery.py").write_bytes((folder / "delivery.py").read_bytes()[:-100])


def spoil_hash(folder: Path) -> None:
    said = json.loads((folder / "delivery.release.json").read_bytes())
    (folder / "delivery.release.json").write_text(json.dumps({**said, "sha256": "0" * 64}))


def unsign(folder: Path) -> None:
    said = json.loads((folder / "delivery.release.json").read_bytes())
    (folder / "delivery.release.json").write_text(json.dumps({**said, "signature": ""}))


def no_release(folder: Path) -> None:
    (folder / "delivery.release.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [(spoil_file, "not the file that was signed"), (spoil_hash, "not signed"), (unsign, "not signed"), (no_release, "this is none")],
)
def test_a_corrupt_release_changes_nothing(device: EdgeClient, newer: Path, verify: Verify, tmp_path: Path, spoil: Any, what: str) -> None:
    before = (tmp_path / "delivery.py").read_bytes()
    spoil(newer)
    with pytest.raises(RegistryError, match=what):
        device.update(address(newer), verify)
    assert (tmp_path / "delivery.py").read_bytes() == before
    assert not kept(tmp_path / "delivery.py").exists()
    assert device.answer(GOOD).answer["version"] == "model:delivery:1"
    device.close()


def test_a_signed_file_that_answers_otherwise_is_refused(
    device: EdgeClient, newer: Path, verify: Verify, keys: Path, tmp_path: Path
) -> None:

    file = newer / "delivery.py"
    file.write_text(
        file.read_text().replace("answer = MODEL.answer\n", "def answer(*a):\n    return {**MODEL.answer(*a), 'minutes': 0.0}\n")
    )
    said = json.loads((newer / "delivery.release.json").read_bytes())
    del said["signature"]
    said["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    message = json.dumps(["mainspring release", said], sort_keys=True).encode()
    (newer / "delivery.release.json").write_text(json.dumps({**said, "signature": signer(keys / "key.pem")(message).hex()}))
    with pytest.raises(RegistryError, match=r"where .* was signed"):
        device.update(address(newer), verify)
    assert device.version == "model:delivery:1"
    with pytest.raises(StorageError, match="cannot be read"):
        device.update((newer / "nowhere" / "x.json").as_uri(), verify)
    device.close()


def test_the_first_answer_that_a_new_one_fails_to_give_rolls_back(device: EdgeClient, newer: Path, verify: Verify) -> None:
    device.update(address(newer), verify)
    device._module.MODEL.predictor = None
    answer = device.answer(GOOD)
    assert answer.answer["version"] == device.version == "model:delivery:1"
    device.close()
