"""The request path against real stores: what answers, and what stands in when a part of it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from delivery import NOW, build, system
from mainspring.clock import HOUR
from mainspring.errors import RequestError, ServingError, StorageError
from mainspring.gateway.backend import Backend, opened
from mainspring.model_registry.registry import Registry
from mainspring.schema import Status
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

ROW = {"drive": "new", "sent_at": NOW + HOUR, "depot": "north", "km": 10.0}


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return build(tmp_path / "space", versions=2)


@pytest.fixture
def backend(space: Workspace) -> Iterator[Backend]:
    with opened(space, stream=True) as backend:
        yield backend


def logged(space: Workspace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = PredictionLog(space.predictions).read()[0].to_pylist()
    return rows


def test_an_answer_has_interval_version_and_the_three_strongest_reasons(backend: Backend, space: Workspace) -> None:
    answer = backend.answer(ROW, request_id="r1", explain=True)
    assert answer.answered_by == "model"
    assert answer.version == "model:delivery:2"
    assert answer.interval is not None
    assert answer.interval.low < answer.prediction < answer.interval.high
    assert len(answer.reasons) == 3
    assert answer.reasons[0].feature == "km"
    row = logged(space)[-1]
    assert (row["request_id"], row["score"], row["version"]) == ("r1", answer.prediction, answer.version)
    assert row["request.km"] == 10.0
    assert row["status.at_depot__minutes_mean_7d"] == Status.PRESENT


def test_an_unknown_required_key_is_refused_with_its_field(backend: Backend) -> None:
    with pytest.raises(RequestError, match="'nowhere' is not a known depot") as caught:
        backend.answer({**ROW, "depot": "nowhere"}, request_id="r", explain=False)
    assert caught.value.field == "depot"
    assert caught.value.status == 422


def test_a_null_where_it_is_allowed_is_answered(backend: Backend) -> None:
    assert backend.answer({**ROW, "km": None}, request_id="r", explain=True).prediction > 0


def damage(space: Workspace, version: str, artifact: str) -> None:
    registry = Registry(space.registry)
    digest = registry.version(version).artifacts[artifact]
    registry.close()
    file = next(path for path in (space.registry / "blobs").rglob("*") if path.is_file() and digest in str(path).replace("/", ""))
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-40])


def test_a_damaged_model_is_refused_and_the_previous_one_answers(space: Workspace) -> None:
    registry = Registry(space.registry)
    first, second = (registry.version(f"model:delivery:{n}").artifacts["model.txt"] for n in (1, 2))
    registry.close()
    assert first == second, "the same rows give the same trees to the bit"
    with opened(space, stream=True) as backend:
        before = backend.answer(ROW, request_id="r", explain=False)
    damage(space, "model:delivery:2", "model.txt")
    with opened(space, stream=True) as backend:
        answer = backend.answer(ROW, request_id="r", explain=True)
    assert before.answered_by == "model"
    assert answer.answered_by == "line", "both versions hold the same damaged blob, so the rule answers"
    assert answer.interval is None
    assert answer.reasons == ()


def test_previous_answers_when_only_the_champion_is_gone(space: Workspace) -> None:
    with sqlite3.connect(space.registry / "registry.sqlite") as connection:
        connection.execute("DROP TRIGGER versions_no_update")
        row = connection.execute("SELECT artifacts FROM versions WHERE kind = 'model' AND number = 2").fetchone()[0]
        broken = row.replace('"model.txt": "', '"model.txt": "0000')
        assert broken != row
        connection.execute("UPDATE versions SET artifacts = ? WHERE kind = 'model' AND number = 2", (broken,))
    with opened(space, stream=True) as backend:
        answer = backend.answer(ROW, request_id="r", explain=True)
    assert (answer.answered_by, answer.version) == ("previous", "model:delivery:1")
    assert answer.interval is not None
    assert len(answer.reasons) == 3


def test_with_no_version_at_all_it_is_not_ready_and_refuses(tmp_path: Path) -> None:
    space = build(tmp_path / "none", versions=0)
    with opened(space, stream=True) as backend:
        assert "no promoted version" in (backend.ready() or "")
        with pytest.raises(ServingError, match="Train and promote"):
            backend.answer(ROW, request_id="r", explain=False)


def test_a_store_that_fails_gives_declared_defaults_and_says_so(backend: Backend, space: Workspace) -> None:
    store = backend._service._features._online._store

    class Down:
        def get_many(self, keys: object) -> None:
            raise StorageError("down")

    backend._service._features._online._store = Down()  # type: ignore[assignment]
    try:
        answer = backend.answer(ROW, request_id="late", explain=False)
    finally:
        backend._service._features._online._store = store
    assert answer.answered_by == "model"
    assert answer.flags == {
        "at_depot__minutes_mean_7d": "unavailable",
        "at_depot__count_1d": "unavailable",
        "place__size_last": "unavailable",
    }
    row = logged(space)[-1]
    assert row["feature.at_depot__minutes_mean_7d"] == 30.0
    assert row["status.at_depot__minutes_mean_7d"] == Status.UNAVAILABLE


def test_an_event_changes_the_next_answer(backend: Backend) -> None:
    late = {
        "drive": "late",
        "sent_at": "2025-02-10T00:00:00Z",
        "depot": "north",
        "km": 10,
        "done_at": "2025-02-10T00:30:00Z",
        "minutes": 1200,
    }
    before = backend.answer(ROW, request_id="a", explain=False)
    assert backend.ingest("done", [late])["accepted"] == 1
    backend._service._features._online.apply(backend._log)
    after = backend.answer(ROW, request_id="b", explain=False)
    assert before.prediction != after.prediction or logged_mean(backend) > 30


def logged_mean(backend: Backend) -> float:
    values = backend._service._features.read(ROW).values
    return float(values[[feature.name for feature in system.features].index("at_depot__minutes_mean_7d")])


def test_a_rollout_splits_by_unit_and_scores_the_other_in_shadow(space: Workspace) -> None:
    registry = Registry(space.registry)
    registry.decide("delivery", "shadow", "model:delivery:1", at=NOW + 9, by="test", reason="t")
    with opened(space, stream=True) as backend:
        shadow = backend.answer(ROW, request_id="s", explain=False)
        registry.decide("delivery", "canary", "model:delivery:1", at=NOW + 10, by="test", reason="t", evidence={"share": 0.3})
        answers = [backend.answer({**ROW, "drive": f"u{i}"}, request_id=f"u{i}", explain=False) for i in range(400)]
        again = [backend.answer({**ROW, "drive": f"u{i}"}, request_id=f"v{i}", explain=False) for i in range(400)]
        registry.decide("delivery", "roll_back", "model:delivery:1", at=NOW + 11, by="test", reason="t")
        back = backend.answer({**ROW, "drive": "u0"}, request_id="w", explain=False)
    registry.close()
    assert (shadow.variant, shadow.version) == ("champion", "model:delivery:2")
    assert [one.variant for one in answers] == [one.variant for one in again]
    assert 0.22 < sum(one.variant == "challenger" for one in answers) / 400 < 0.38
    assert {one.version for one in answers if one.variant == "challenger"} == {"model:delivery:1"}
    assert back.version == "model:delivery:2"
    rows = {row["request_id"]: row for row in logged(space)}
    assert rows["s"]["shadow_version"] == "model:delivery:1"
    assert all(rows[f"u{i}"]["shadow_score"] is not None for i in range(400))
