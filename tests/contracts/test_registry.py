from __future__ import annotations

import functools
import hashlib
import hmac
import multiprocessing
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from registries import Place, make_place

from mainspring.errors import RegistryError
from mainspring.model_registry import Deployment, Registry

SPAWN = multiprocessing.get_context("spawn")
KEY = b"a secret of the test"


@pytest.fixture(params=["folder", "postgres", "postgres-s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return make_place(request.param, tmp_path / "registry", request.getfixturevalue)


@pytest.fixture
def registry(place: Place) -> Iterator[Registry]:
    with closing(Registry(place.address)) as registry:
        yield registry


def sign(message: bytes) -> bytes:
    return hmac.digest(KEY, message, "sha256")


def verify(message: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(KEY, message, "sha256"), signature)


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


def test_altered_truncated_foreign_swapped_and_missing_artifacts_are_refused(registry: Registry, place: Place) -> None:
    version = registry.register("model", "eta", {}, {"model.txt": b"tree"}, at=1)
    other = registry.register("model", "eta", {}, {"model.txt": b"another tree"}, at=2)
    with pytest.raises(RegistryError, match=r"no artifact 'model'.*Did you mean 'model.txt'"):
        registry.artifact(version, "model")
    digest = version.artifacts["model.txt"]
    for data in (b"tre", b"trEe", b"", b"from elsewhere", registry.artifact(other, "model.txt")):
        place.alter(digest, data)
        with pytest.raises(RegistryError, match=f"model:eta:1.*model.txt.*{digest}.* altered"):
            registry.artifact(version, "model.txt")
        assert "altered" in registry.verify(version)[0]
    place.alter(digest, None)
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.artifact(version, "model.txt")
    assert registry.verify(other) == []


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


def test_what_the_gate_refused_is_released_only_with_a_reason(registry: Registry) -> None:
    release(registry)
    move = functools.partial(registry.decide, "eta", version="model:eta:2", by="me", reason="r")
    move("gate_refused", at=14, by="gate", reason="it lost 0.2")
    before = registry.decisions("eta")
    for action in ("shadow", "canary", "promote"):
        with pytest.raises(RegistryError, match=r"refused it on 1970-.*\(it lost 0.2\)\. .*--despite REASON"):
            move(action, at=15, evidence={"share": 0.5})
    for unfit in ("", " ", True, 3):
        with pytest.raises(RegistryError, match=r"evidence\['despite'\] is .* Say why"):
            move("promote", at=15, evidence={"despite": unfit})
    assert registry.decisions("eta") == before
    assert move("promote", at=15, evidence={"despite": "the holdout was a holiday"}).evidence["despite"] == "the holdout was a holiday"
    assert registry.deployment("eta").champion == "model:eta:2"


def test_a_release_despite_the_gate_goes_on_until_it_is_rolled_back_or_refused_again(registry: Registry) -> None:
    release(registry)
    move = functools.partial(registry.decide, "eta", version="model:eta:2", by="me", reason="r")
    despite = {"despite": "drill"}
    move("gate_refused", at=14)
    move("shadow", at=15, evidence=despite)
    move("canary", at=16, evidence={"share": 0.5})
    move("roll_back", at=17)
    with pytest.raises(RegistryError, match="the gate refused it"):
        move("shadow", at=18)
    move("shadow", at=18, evidence=despite)
    move("gate_refused", at=19)
    with pytest.raises(RegistryError, match="the gate refused it"):
        move("promote", at=20)
    move("gate_passed", at=21)
    move("promote", at=22)
    move("gate_refused", at=23)
    move("roll_back", at=24)
    assert registry.deployment("eta").champion == "model:eta:1"


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
        "INSERT INTO versions SELECT 1, 'model', 'eta', 9, 0, '{}', '{}', ''",
        "INSERT INTO versions SELECT 99, 'model', 'eta', 1, 0, '{}', '{}', ''",
        "INSERT INTO decisions SELECT 1, 0, 'eta', 'hold', '', '', '', '{}'",
    ],
)
def test_the_record_can_only_grow(registry: Registry, place: Place, statement: str) -> None:
    release(registry)
    before = registry.history("eta")
    with pytest.raises((sqlite3.IntegrityError, psycopg.Error), match=r"append only|duplicate key"):
        place.execute(statement)
    assert registry.history("eta") == before


def changed(registry: Registry, before: int) -> int:
    until = time.monotonic() + 5
    while registry.token() == before and time.monotonic() < until:
        time.sleep(0.01)
    return registry.token()


def test_the_token_changes_at_any_write_by_anyone_and_at_nothing_else(registry: Registry, place: Place) -> None:
    other = Registry(place.address)
    seen = [registry.token()]
    for writer in (registry, other, registry, other, other):
        writer.register("model", "eta", {}, at=1)
        seen.append(changed(registry, seen[-1]))
        other.versions("model", "eta")
        time.sleep(0.11)
        assert registry.token() == seen[-1]
    assert len(set(seen)) == len(seen)
    other.close()


def register_many(address: str, writer: int, count: int) -> None:
    """Register ``count`` versions under two names from four threads, with artifacts now and then, and decide about some."""

    def one(number: int) -> None:
        artifacts = {"model.txt": b"%d %d" % (writer, number)} if number % 25 == 0 else None
        registry.register("model", f"m{number % 2}", {"writer": writer, "number": number}, artifacts, at=number)
        if number % 25 == 0:
            registry.decide("eta", "hold", at=number, by=str(writer), reason=str(number))

    with closing(Registry(address)) as registry, ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(count)))


@pytest.mark.parametrize("place", ["folder", "postgres"], indirect=True)
def test_a_thousand_registrations_at_once_lose_nothing_while_a_reader_reads(registry: Registry, place: Place) -> None:
    writers = [SPAWN.Process(target=register_many, args=(place.address, writer, 500)) for writer in range(2)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        numbers = [one.number for one in registry.versions("model", "m0")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= seen
        seen = len(numbers)
        writers[0].join(0.02)
    assert [writer.exitcode for writer in writers] == [0, 0]
    for name in range(2):
        versions = registry.versions("model", f"m{name}")
        assert [one.number for one in versions] == list(range(1, 501))
        found = {(one.manifest["writer"], one.manifest["number"]) for one in versions}
        assert found == {(writer, number) for writer in range(2) for number in range(name, 500, 2)}
        for one in versions:
            if one.artifacts:
                assert registry.artifact(one, "model.txt") == b"%d %d" % (one.manifest["writer"], one.manifest["number"])
    assert [one.seq for one in registry.decisions("eta")] == list(range(1, 41))


def promote(address: str, version: str) -> None:
    try:
        Registry(address).decide("eta", "promote", version, at=1, by="rival", reason="first")
    except RegistryError:
        raise SystemExit(3) from None


def test_of_two_rival_first_promotions_one_is_refused(registry: Registry, place: Place) -> None:
    versions = [registry.register("model", "eta", {}, at=1).id for _ in range(2)]
    rivals = [SPAWN.Process(target=promote, args=(place.address, version)) for version in versions]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert sorted(rival.exitcode or 0 for rival in rivals) == [0, 3]
    assert registry.deployment("eta").champion in versions


def killed_in_a_write(address: str) -> None:
    registry = Registry(address)
    registry.register("model", "eta", {}, at=1)
    with registry._rows.writing() as execute:
        execute(
            "INSERT INTO versions (seq, kind, name, number, at, manifest, artifacts, signature) VALUES (2, 'model', 'x', 1, 2, '', '', '')"
        )
        multiprocessing.current_process().kill()


def test_a_kill_in_the_middle_of_a_write_leaves_what_was_committed(registry: Registry, place: Place) -> None:
    victim = SPAWN.Process(target=killed_in_a_write, args=(place.address,))
    victim.start()
    victim.join()
    assert registry.register("model", "eta", {}, at=3).number == 2
    assert [one.at for one in registry.versions("model", "eta")] == [1, 3]


def test_aliases_move_and_their_history_stays(registry: Registry) -> None:
    for at in range(3):
        registry.register("model", "eta", {}, at=at)
    registry.register("model", "other", {}, at=3)
    registry.alias("eta", "last-good", "model:eta:1", at=10, by="me", reason="calm")
    registry.alias("eta", "candidate", "model:eta:2", at=11, by="me", reason="new")
    registry.alias("eta", "last-good", "model:eta:2", at=12, by="me", reason="calm again")
    registry.alias("eta", "candidate", "", at=13, by="me", reason="done")
    assert registry.aliases("eta") == {"last-good": "model:eta:2"}
    assert registry.aliases("eta", at=11) == {"last-good": "model:eta:1", "candidate": "model:eta:2"}
    assert [one.version for one in registry.decisions("eta") if one.evidence["alias"] == "last-good"] == ["model:eta:1", "model:eta:2"]
    assert registry.deployment("eta") == Deployment()
    for alias, version, why in [
        ("champion", "model:eta:1", "none of"),
        ("3", "model:eta:1", "no number"),
        ("a b", "model:eta:1", "must be letters"),
        ("x", "model:other:1", "none of its models"),
        ("x", "model:eta:9", "no version"),
    ]:
        with pytest.raises(RegistryError, match=why):
            registry.alias("eta", alias, version, at=14, by="me", reason="r")


def test_a_version_is_found_by_id_number_alias_and_role(registry: Registry) -> None:
    release(registry)
    registry.alias("eta", "last-good", "model:eta:1", at=20, by="me", reason="calm")
    for which, number in [("model:eta:2", 2), ("2", 2), ("last-good", 1), ("champion", 1), ("challenger", 2)]:
        assert registry.resolve("eta", which).number == number
    with pytest.raises(RegistryError, match=r"nothing is called 'lastgood'.*Did you mean 'last-good'"):
        registry.resolve("eta", "lastgood")
    with pytest.raises(RegistryError, match="nothing is called 'previous'"):
        registry.resolve("eta", "previous")


def test_the_history_is_all_that_was_registered_and_decided(registry: Registry) -> None:
    release(registry)
    found = [one.id if hasattr(one, "kind") else one.action for one in registry.history("eta")]
    assert found == ["model:eta:1", "model:eta:2", "promote", "gate_passed", "shadow", "canary"]


def test_a_roll_back_may_name_an_earlier_champion_and_no_other_version(registry: Registry) -> None:
    release(registry)
    for at, (action, version) in enumerate([("promote", 2), ("shadow", 3), ("promote", 3), ("shadow", 4)], 20):
        if version > 2 and action == "shadow":
            registry.register("model", "eta", {}, at=at)
        registry.decide("eta", action, f"model:eta:{version}", at=at, by="test", reason="r")
    for to, why in [("model:eta:4", "never was the champion"), ("model:eta:9", "never was the champion")]:
        with pytest.raises(RegistryError, match=why):
            registry.decide("eta", "roll_back", at=30, by="me", reason="r", evidence={"to": to})
    registry.decide("eta", "roll_back", at=31, by="me", reason="complaints", evidence={"to": "model:eta:1"})
    assert registry.deployment("eta") == Deployment("model:eta:1", None, None, "steady", 0.0, 31, 9)
    with pytest.raises(RegistryError, match="Name another version"):
        registry.decide("eta", "roll_back", at=32, by="me", reason="r", evidence={"to": "model:eta:1"})


def test_pruning_drops_what_nobody_needs_and_says_so_when_asked(registry: Registry, place: Place) -> None:
    for number in range(1, 8):
        registry.register("model", "eta", {"bytes": 4}, {"model.txt": b"tree %d" % number, "system.json": b"the same"}, at=number)
    registry.decide("eta", "promote", "model:eta:1", at=10, by="test", reason="r")
    registry.alias("eta", "last-good", "model:eta:3", at=11, by="test", reason="r")
    before = registry.history("eta")
    assert [one.number for one in registry.prunable("eta", 2)] == [2, 4, 5]
    gone = registry.prune("eta", 2, at=20, by="me", reason="the disk is small")
    assert [one.number for one in gone] == [2, 4, 5]
    assert registry.pruned("eta") == {one.id for one in gone}
    assert registry.history("eta")[: len(before)] == before
    for one in registry.versions("model", "eta"):
        if one in gone:
            with pytest.raises(RegistryError, match=rf"{one.id}.*dropped on 1970-01-01.* by me \(the disk is small\)"):
                registry.artifact(one, "model.txt")
            assert not registry._blobs.has(one.artifacts["model.txt"])
        else:
            assert registry.verify(one) == []
    for action, version, evidence in [("shadow", "model:eta:2", {}), ("alias", "model:eta:4", {"alias": "x"})]:
        with pytest.raises(RegistryError, match="artifacts were dropped"):
            registry.decide("eta", action, version, at=30, by="me", reason="r", evidence=evidence)
    assert registry.prune("eta", 2, at=21, by="me", reason="again") == []
    with pytest.raises(RegistryError, match="Keep 1 or more"):
        registry.prune("eta", 0, at=22, by="me", reason="r")
    again = registry.register("model", "eta", {}, {"model.txt": b"tree 2"}, at=40)
    assert registry.artifact(again, "model.txt") == b"tree 2"
    assert registry.prune("eta", 7, at=41, by="me", reason="nothing") == []
    assert registry.artifact(again, "model.txt") == b"tree 2"


def test_pruning_killed_half_way_goes_on_when_asked_again(registry: Registry, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [registry.register("model", "eta", {}, {"model.txt": b"%d" % number}, at=number) for number in range(3)]
    with monkeypatch.context() as broken:
        broken.setattr(type(registry._blobs), "delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            registry.prune("eta", 1, at=10, by="me", reason="r")
    assert registry.pruned("eta") == {"model:eta:1", "model:eta:2"}
    assert registry.prune("eta", 1, at=11, by="me", reason="r") == []
    assert [registry._blobs.has(one.artifacts["model.txt"]) for one in versions] == [False, False, True]


def test_an_artifact_dropped_while_another_version_registers_it_stays(
    registry: Registry, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        registry.register("model", "eta", {}, {"model.txt": b"%d" % number}, at=number)
    writer = Registry(place.address)
    digests: list[str] = []
    put = writer._blobs.put

    def then_prune(data: bytes) -> str:
        digests.append(put(data))
        if len(digests) == 1:
            registry.prune("eta", 1, at=10, by="rival", reason="r")
            assert not writer._blobs.has(digests[0])
        return digests[0]

    monkeypatch.setattr(writer._blobs, "put", then_prune)
    version = writer.register("model", "eta", {}, {"model.txt": b"0"}, at=11)
    assert registry.artifact(version, "model.txt") == b"0"
    writer.close()


def test_signed_versions_load_and_unsigned_or_forged_ones_are_refused(place: Place) -> None:
    with closing(Registry(place.address)) as unsigned:
        unsigned.register("model", "eta", {}, {"model.txt": b"tree"}, at=1)
    with closing(Registry(place.address, sign=sign, verify=verify)) as registry:
        manifest = {"metrics": {"mae": 0.1 + 0.2, "rows": 2**60}, "name": "Zoë", "none": None}
        version = registry.register("model", "eta", manifest, {"model.txt": b"tree", "card.md": b"# Card"}, at=2)
        assert registry.version("model:eta:2") == version
        assert registry.artifact(version, "model.txt") == b"tree"
        assert registry.verify(version) == []
        first = registry.versions("model", "eta")[0]
        for act in (lambda: registry.version("model:eta:1"), lambda: registry.artifact(first, "model.txt")):
            with pytest.raises(RegistryError, match="'model:eta:1' is not signed"):
                act()
        with pytest.raises(RegistryError, match="'model:eta:1' is not signed"):
            registry.decide("eta", "promote", "model:eta:1", at=3, by="me", reason="r")
    other_key = Registry(place.address, verify=lambda message, signature: not verify(message, signature))
    with closing(other_key), pytest.raises(RegistryError, match="'model:eta:2': the signature does not fit"):
        other_key.version("model:eta:2")


FOREIGN = hashlib.sha256(b"a foreign tree").hexdigest()


@pytest.mark.parametrize(
    ("statement", "id"),
    [
        ("""UPDATE versions SET manifest = '{"metrics": {"mae": 0}}' WHERE number = 1""", "model:eta:1"),
        ("UPDATE versions SET at = 99 WHERE number = 1", "model:eta:1"),
        ("UPDATE versions SET artifacts = (SELECT artifacts FROM versions WHERE number = 2) WHERE number = 1", "model:eta:1"),
        (f"""UPDATE versions SET artifacts = '{{"model.txt": "{FOREIGN}"}}' WHERE number = 1""", "model:eta:1"),
        ("UPDATE versions SET signature = (SELECT signature FROM versions WHERE number = 2) WHERE number = 1", "model:eta:1"),
        ("UPDATE versions SET signature = '00' WHERE number = 1", "model:eta:1"),
        ("UPDATE versions SET signature = 'no hex' WHERE number = 1", "model:eta:1"),
        ("UPDATE versions SET signature = '' WHERE number = 1", "model:eta:1"),
        (
            "INSERT INTO versions SELECT 9, kind, name, 1000, at, manifest, artifacts, signature FROM versions WHERE number = 2",
            "model:eta:1000",
        ),
        (
            "INSERT INTO versions SELECT 9, kind, 'other', number, at, manifest, artifacts, signature FROM versions WHERE seq = 1",
            "model:other:1",
        ),
    ],
)
def test_an_edited_row_and_a_replayed_signature_are_refused(place: Place, statement: str, id: str) -> None:
    with closing(Registry(place.address, sign=sign, verify=verify)) as registry:
        for number in range(2):
            registry.register("model", "eta", {"metrics": {"mae": 2.5}}, {"model.txt": b"tree %d" % number}, at=number)
        registry.register("model", "last", {}, {"model.txt": b"a foreign tree"}, at=7)
        place.forge(statement)
        forged = {one.id: one for name in ("eta", "other") for one in registry.versions("model", name)}[id]
        with pytest.raises(RegistryError, match=f"'{forged.id}'.*(signature does not fit|not signed)"):
            registry.version(forged.id)
        with pytest.raises(RegistryError, match=f"'{forged.id}'.*(signature does not fit|not signed)"):
            registry.artifact(forged, "model.txt")
        assert registry.verify(registry.version("model:eta:2")) == []
