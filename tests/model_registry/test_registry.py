import multiprocessing
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.errors import RegistryError
from mainspring.model_registry import Deployment, Registry

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "registry")
    yield registry
    registry.close()


def test_versions_count_per_kind_and_name_and_come_back_whole(registry: Registry) -> None:
    manifest = {"features": ["a", "b"], "metrics": {"mae": 1.5, "rows": 2**60}, "none": None, "name": "Zoë"}
    first = registry.register("model", "eta", manifest, {"model.txt": b"tree", "codes.json": b"{}"}, at=7)
    second = registry.register("model", "eta", {}, at=8)
    other = registry.register("dataset", "eta", {"rows": (1, 2)}, at=9)
    assert [one.id for one in (first, second, other)] == ["model:eta:1", "model:eta:2", "dataset:eta:1"]
    assert registry.version("model:eta:1") == first
    assert first.manifest == manifest
    assert other.manifest == {"rows": [1, 2]}
    assert registry.versions("model", "eta") == [first, second]
    assert registry.versions("model", "nothing") == []
    assert registry.artifact(first, "model.txt") == b"tree"


@pytest.mark.parametrize("id", ["model:eta:2", "model:eta:01", "model:eta", "model:eta:x", "", "modle:eta:1"])
def test_an_unknown_version_is_refused_with_the_nearest(registry: Registry, id: str) -> None:
    registry.register("model", "eta", {}, at=1)
    with pytest.raises(RegistryError, match="model:eta:1"):
        registry.version(id)


def test_altered_truncated_and_missing_artifacts_are_refused(registry: Registry, tmp_path: Path) -> None:
    version = registry.register("model", "eta", {}, {"model.txt": b"tree"}, at=1)
    with pytest.raises(RegistryError, match=r"no artifact 'model'.*Did you mean 'model.txt'"):
        registry.artifact(version, "model")
    digest = version.artifacts["model.txt"]
    file = tmp_path / "registry" / "blobs" / digest[:2] / digest
    for data in (b"tre", b"trEe"):
        file.write_bytes(data)
        with pytest.raises(RegistryError, match=f"model:eta:1.*model.txt.*{digest}"):
            registry.artifact(version, "model.txt")
    file.unlink()
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.artifact(version, "model.txt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: "x"}, object(), b"bytes", {"x"}])
def test_what_is_not_json_is_refused(registry: Registry, value: object) -> None:
    with pytest.raises(RegistryError, match="manifest of model 'eta' is not JSON"):
        registry.register("model", "eta", {"value": value}, at=1)
    with pytest.raises(RegistryError, match="evidence of 'hold'"):
        registry.decide("eta", "hold", at=1, by="test", reason="r", evidence={"value": value})
    assert registry.versions("model", "eta") == []
    assert registry.decisions("eta") == []


def test_unknown_kinds_and_unusable_names_are_refused(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="Did you mean 'model'"):
        registry.register("modle", "eta", {}, at=1)
    for name in ("", "a:b", "../x", "-x"):
        with pytest.raises(RegistryError, match="must be letters"):
            registry.register("model", name, {}, at=1)


def release(registry: Registry) -> None:
    for at in (1, 2):
        registry.register("model", "eta", {}, at=at)
    registry.decide("eta", "promote", "model:eta:1", at=10, by="loop", reason="first")
    registry.decide("eta", "gate_passed", "model:eta:2", at=11, by="loop", reason="better", evidence={"ratio": 0.9})
    registry.decide("eta", "shadow", "model:eta:2", at=12, by="loop", reason="gate")
    registry.decide("eta", "canary", "model:eta:2", at=13, by="loop", reason="step", evidence={"share": 0.1})


def test_decisions_and_what_was_live_when(registry: Registry) -> None:
    release(registry)
    registry.decide("fraud", "trigger", at=14, by="loop", reason="schedule")
    assert [(one.seq, one.action) for one in registry.decisions("eta")] == [
        (1, "promote"),
        (2, "gate_passed"),
        (3, "shadow"),
        (4, "canary"),
    ]
    assert [one.evidence for one in registry.decisions("eta", since=2)] == [{}, {"share": 0.1}]
    assert registry.deployment("eta", 11) == Deployment("model:eta:1", None, None, "steady", 0.0, 10, 1)
    assert registry.deployment("eta") == Deployment("model:eta:1", None, "model:eta:2", "canary", 0.1, 13, 4)
    assert registry.deployment("fraud") == Deployment()


def test_impossible_moves_leave_nothing_behind(registry: Registry) -> None:
    release(registry)
    registry.register("dataset", "eta", {}, at=1)
    before = registry.decisions("eta")
    for action, version, why in [
        ("promote", "model:eta:1", "challenger is model:eta:2"),
        ("shadow", "model:eta:1", "champion is model:eta:1"),
        ("shadow", "dataset:eta:1", "needs a model"),
        ("shadow", "model:eta:9", "no version 'model:eta:9'"),
        ("hold", "model:eta:9", "no version 'model:eta:9'"),
    ]:
        with pytest.raises(RegistryError, match=why):
            registry.decide("eta", action, version, at=20, by="test", reason="r")
    assert registry.decisions("eta") == before
    assert registry.decide("eta", "roll_back", at=21, by="test", reason="r").seq == 5


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE versions SET at = 0",
        "DELETE FROM versions",
        "UPDATE decisions SET reason = 'other'",
        "DELETE FROM decisions",
        "INSERT OR REPLACE INTO versions SELECT 1, 'model', 'eta', 9, 0, '{}', '{}'",
        "INSERT OR REPLACE INTO versions SELECT 99, 'model', 'eta', 1, 0, '{}', '{}'",
        "INSERT OR REPLACE INTO decisions SELECT 1, 0, 'eta', 'hold', '', '', '', '{}'",
    ],
)
def test_the_record_can_only_grow(registry: Registry, tmp_path: Path, statement: str) -> None:
    release(registry)
    raw = sqlite3.connect(tmp_path / "registry" / "registry.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        raw.execute(statement)
    raw.close()


def test_the_token_changes_at_any_write_by_anyone_and_at_nothing_else(registry: Registry, tmp_path: Path) -> None:
    other = Registry(tmp_path / "registry")
    seen = [registry.token()]
    for writer in (registry, other, registry, other, other):
        writer.register("model", "eta", {}, at=1)
        seen.append(registry.token())
        other.versions("model", "eta")
        assert registry.token() == seen[-1]
    assert len(set(seen)) == len(seen)
    other.close()


def test_another_program_or_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RegistryError, match="cannot be opened"):
        Registry(tmp_path)
    (tmp_path / "registry.sqlite").unlink()
    raw = sqlite3.connect(tmp_path / "registry.sqlite")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(RegistryError, match="format 99 is not 1"):
        Registry(tmp_path)


def test_threads_may_share_a_registry(registry: Registry) -> None:
    threads = [threading.Thread(target=lambda: [registry.register("model", "eta", {}, at=1) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.number for one in registry.versions("model", "eta")] == list(range(1, 41))


def write_many(path: Path, writer: int) -> None:
    registry = Registry(path)
    for number in range(25):
        registry.register("model", "eta", {"writer": writer, "number": number}, {"blob": b"%d" % number}, at=number)
        registry.decide("eta", "hold", at=number, by=str(writer), reason="r")


def test_concurrent_processes_lose_nothing_while_a_reader_reads(tmp_path: Path) -> None:
    path = tmp_path / "registry"
    writers = [SPAWN.Process(target=write_many, args=(path, writer)) for writer in range(3)]
    for writer in writers:
        writer.start()
    reader, seen = Registry(path), 0
    while any(writer.is_alive() for writer in writers):
        numbers = [one.number for one in reader.versions("model", "eta")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= seen
        seen = len(numbers)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = {(one.manifest["writer"], one.manifest["number"]) for one in reader.versions("model", "eta")}
    assert found == {(writer, number) for writer in range(3) for number in range(25)}
    assert [one.seq for one in reader.decisions("eta")] == list(range(1, 76))
    reader.close()


def promote(path: Path, version: str) -> None:
    try:
        Registry(path).decide("eta", "promote", version, at=1, by="rival", reason="first")
    except RegistryError:
        raise SystemExit(3) from None


def test_of_two_rival_first_promotions_one_is_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    versions = [registry.register("model", "eta", {}, at=1).id for _ in range(2)]
    rivals = [SPAWN.Process(target=promote, args=(tmp_path, version)) for version in versions]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert sorted(rival.exitcode or 0 for rival in rivals) == [0, 3]
    assert registry.deployment("eta").champion in versions
    registry.close()


def killed_in_a_write(path: Path) -> None:
    registry = Registry(path)
    registry.register("model", "eta", {}, at=1)
    connection = registry._connection
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO versions (kind, name, number, at, manifest, artifacts) VALUES ('model', 'eta', 2, 2, '{}', '{}')")
    multiprocessing.current_process().kill()


def test_a_kill_in_the_middle_of_a_write_leaves_what_was_committed(tmp_path: Path) -> None:
    victim = SPAWN.Process(target=killed_in_a_write, args=(tmp_path,))
    victim.start()
    victim.join()
    registry = Registry(tmp_path)
    assert registry.register("model", "eta", {}, at=3).number == 2
    registry.close()
