"""Erasing a key everywhere: nothing of it is left, nothing else is lost, whatever is killed when and whoever serves meanwhile."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cards
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cards import NOW, SECRET, system
from click.testing import CliRunner

from mainspring.cli import main
from mainspring.clock import DAY, ManualClock
from mainspring.errors import DeclarationError, StorageError
from mainspring.feature_store.causes import equal
from mainspring.feature_store.online import OnlineStore, Served
from mainspring.gateway.backend import opened
from mainspring.ingestion import Quarantine
from mainspring.loop.erase import Eraser, erase, holds_value
from mainspring.loop.receipt import Receipt, hashed, receipt_hash
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.event_log import EventLog
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.stores import open_key_value
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder

HERE = Path(__file__).parent
CLOCK = ManualClock(NOW + DAY)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return cards.build(tmp_path_factory.mktemp("cards") / "space")


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the card never paid."""
    space = Workspace(tmp_path_factory.mktemp("never") / "space")
    cards.fill(space, secret=None)
    return space


@pytest.fixture
def space(made: Workspace, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(made.path, tmp_path / "space"))


def holding(path: Path, text: str = SECRET) -> list[str]:
    """The files in which the value stands, in plain or compressed."""
    found = []
    for file in filter(Path.is_file, path.rglob("*")):
        inside = file.read_bytes()
        if file.suffix == ".parquet":
            inside += repr(pq.read_table(file, partitioning=None).to_pylist()).encode()
        if text.encode() in inside:
            found.append(str(file.relative_to(path)))
    return found


def served(space: Workspace, card: str) -> list[Served]:
    store = open_key_value(space.online_url)
    online = OnlineStore(system, store)
    answers = [online.read({"card": card, "shop": f"s{i}"}, NOW) for i in range(5)]
    store.close()
    return answers


def removed(receipt: Receipt) -> dict[str, int]:
    return {place.name: place.removed for place in receipt.places}


def assert_gone(space: Workspace, never: Workspace) -> None:
    assert holding(space.path) == []
    for card in (SECRET, "card-7"):
        for got, want in zip(served(space, card), served(never, card), strict=True):
            assert equal(got.values, want.values)
            assert got.statuses == want.statuses
    one, other = (DatasetBuilder(system, Tables(each.tables)).build(None, NOW) for each in (space, never))
    assert one.manifest["address"] == other.manifest["address"]
    assert np.array_equal(one.label, other.label)
    shutil.rmtree(never.datasets)


def test_a_key_is_gone_from_everywhere_as_if_it_had_never_been(space: Workspace, never: Workspace) -> None:
    everywhere = {file.split("/")[0] for file in holding(space.path)}
    assert everywhere == {"events", "tables", "online", "predictions", "datasets", "quarantine"}
    end = EventLog(space.events).end
    receipt = erase(system, space, "card", SECRET, CLOCK)
    assert receipt.complete
    payments = int((np.array(cards.tables()["paid"].column("card").to_pylist()) == SECRET).sum())
    counts = removed(receipt)
    assert counts["events of paid"] == counts["events of settled"] == counts["table paid"] == counts["table settled"] == payments > 100
    assert (counts["answers"], counts["quarantine"], counts["rows of training sets"]) == (10, 2, payments)
    assert counts["online rows"] >= 7, "its own two rows, and those of the five shops that hold its name"
    assert EventLog(space.events).end == end
    assert_gone(space, never)


def test_what_is_not_of_the_key_stays(space: Workspace) -> None:
    before = PredictionLog(space.predictions).read()[0]
    erase(system, space, "card", SECRET, CLOCK)
    after, cursor = PredictionLog(space.predictions).read()
    kept = before.filter(pa.array([card != SECRET for card in before.column("request.card").to_pylist()]))
    assert after.column("request_id").to_pylist() == kept.column("request_id").to_pylist()
    assert cursor == {"0": 40}, "the other answers keep their numbers"
    lists = [name for name in before.column_names if name.endswith("shop__card_last_k_3")]
    assert kept.drop_columns(lists).equals(after.drop_columns(lists))
    for was, now in zip(kept.column(lists[0]).to_pylist(), after.column(lists[0]).to_pylist(), strict=True):
        assert now == (None if SECRET in was else was)
    assert [row.values["card"] for row in Quarantine(space.quarantine).read("paid")] == ["card-1"]
    rows = sum(len(frame.batch) for frame in EventLog(space.events).read() if frame.source == "shops")
    assert rows == 5


def test_the_log_goes_on_behind_what_was_erased(space: Workspace, never: Workspace, tmp_path: Path) -> None:
    never = Workspace(shutil.copytree(never.path, tmp_path / "never"))
    erase(system, space, "card", SECRET, CLOCK)
    for each in (space, never):
        log = EventLog(each.events)
        more = next(frame.batch for frame in log.read() if frame.source == "paid").slice(0, 3)
        ids = pa.array(["more-1", "more-2", "more-3"])
        log.append("paid", more.set_column(more.schema.get_field_index("_event_id"), "_event_id", ids))
        store = open_key_value(each.online_url)
        online = OnlineStore(system, store)
        assert online.apply(log) == log.end
        store.close()
        Tables(each.tables).catch_up(log)
    assert equal([one.values for one in served(space, "card-7")], [one.values for one in served(never, "card-7")])
    files = Tables(space.tables).files("paid")
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet({files!r}) WHERE _event_id LIKE 'more-%'").fetchall() == [(3,)]


def test_the_receipt_proves_itself_and_does_not_tell_the_value(space: Workspace) -> None:
    receipt = erase(system, space, "card", SECRET, CLOCK)
    text = receipt.path.read_text()
    body = json.loads(text)
    assert SECRET not in text
    assert body["value"] == hashed(body["salt"], SECRET) != hashed(body["salt"], "card-7")
    assert body["hash"] == receipt.hash == receipt_hash(body)
    assert receipt_hash({**body, "places": []}) != receipt.hash
    assert (body["column"], body["at"], body["complete"]) == ("card", "2025-02-01T00:00:00Z", True)
    assert [place["left"] for place in body["places"]] == [0] * len(body["places"])
    assert [one["model"] for one in body["models"]] == ["model:cards:1"]
    assert body["models"][0]["holds_value"] is False
    assert list(space.receipts.glob("*.begun")) == []


def test_asked_again_there_is_nothing_to_erase(space: Workspace) -> None:
    erase(system, space, "card", SECRET, CLOCK)
    again = erase(system, space, "card", SECRET, ManualClock(NOW + 2 * DAY))
    assert again.complete
    assert set(removed(again).values()) == {0}
    assert again.models == []


def test_the_key_is_found_by_the_name_it_has_in_another_source(space: Workspace, never: Workspace) -> None:
    assert erase(system, space, "payer", SECRET, CLOCK).complete
    assert_gone(space, never)


def test_killed_before_any_change_it_is_finished_by_the_next_call(made: Workspace, never: Workspace, tmp_path: Path) -> None:
    full = None
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    change, deaths = 1, 0
    while change < 400:
        space = Workspace(shutil.copytree(made.path, tmp_path / str(change)))
        child = subprocess.run([sys.executable, str(HERE / "cards.py"), str(space.path), str(change)], env=environment, check=False)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        deaths += 1
        receipt = erase(system, space, "card", SECRET, CLOCK)
        assert receipt.complete
        full = full or removed(receipt)
        assert removed(receipt) == full, change
        assert holding(space.path) == []
        if change % 30 == 1:
            assert_gone(space, never)
        shutil.rmtree(space.path)
        change += 9
    assert deaths > 5


def test_a_running_server_goes_on_and_what_it_holds_is_left_until_it_stops(
    space: Workspace, never: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with ServerProcess(space.path) as server:
        ask = {"payment": "live", "paid_at": "2025-01-31T00:00:00Z", "card": SECRET, "shop": "s1", "amount": 5.0}
        first = post(server.url, ask)
        receipt = erase(system, space, "card", SECRET, CLOCK)
        left = {place.name: place.left for place in receipt.places if place.left}
        second = post(server.url, {**ask, "payment": "after", "card": "card-7"})
    assert first["answered_by"] == second["answered_by"] == "model"
    assert left["answers"] == left["stale pages of the online store"] == 1
    assert not receipt.complete
    assert len(list(space.receipts.glob("*.begun"))) == 1
    last = erase(system, space, "card", SECRET, CLOCK)
    assert last.complete
    assert last.body["value"] == receipt.body["value"], "the same receipt is finished"
    assert removed(last)["answers"] == 11
    assert_gone(space, never)


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    import httpx

    answer = httpx.post(f"{url}/v1/cards", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_rows_of_views_that_are_not_declared_any_more_are_dropped(space: Workspace) -> None:
    fewer = [one for one in system.features if not one.name.startswith("shop__card")]
    before = dataclasses.replace(system, features=fewer, model=dataclasses.replace(system.model, ignore=[]))
    assert erase(before, space, "card", SECRET, CLOCK).complete
    assert holding(space.path) == []


def test_an_online_store_on_a_server_is_erased(redis_url: str, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "space")
    space.keep_online_at(redis_url)
    cards.fill(space)
    receipt = erase(system, space, "card", SECRET, CLOCK)
    assert receipt.complete
    assert removed(receipt)["online rows"] >= 7
    store = open_key_value(space.online_url)
    assert not [key for key, row in store.scan(b"") if SECRET.encode() in key + row]
    store.close()


def test_a_log_that_cannot_erase_is_refused_before_anything_goes(space: Workspace) -> None:
    class Stream:
        pass

    with pytest.raises(StorageError, match="Stream cannot erase single events, so nothing was erased"):
        Eraser(system, space, Stream(), CLOCK).erase("card", SECRET)
    assert len(holding(space.path)) > 5


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("cards", "x", "no source has a column 'cards'. Did you mean 'card'"), ("amount", "1", "Keys are text or whole numbers")],
)
def test_what_is_no_key_is_refused(space: Workspace, column: str, value: str, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        erase(system, space, column, value, CLOCK)


def test_a_server_opened_after_an_erasure_answers(space: Workspace) -> None:
    erase(system, space, "card", SECRET, CLOCK)
    with opened(space, stream=True) as backend:
        row = {"payment": "n", "paid_at": NOW + 100, "card": SECRET, "shop": "s1", "amount": 5.0}
        assert backend.answer(row, request_id="n", explain=False).answered_by == "model"


def test_the_verb_prints_the_receipt_and_what_to_do_next(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.cli.systems.find_system", lambda _: cards)
    ask = ["erase", "cards", "--key", f"card={SECRET}", "--workspace", str(space.path)]
    done = CliRunner().invoke(main, ask)
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    assert "events of paid" in done.output
    assert "model:cards:1 was trained on it and stands: retrain" in done.output
    assert "mainspring run cards" in done.output
    again = CliRunner().invoke(main, [*ask, "--json"])
    assert json.loads(again.stdout)["complete"] is True
    assert CliRunner().invoke(main, ["erase", "cards", "--key", SECRET, "--workspace", str(space.path)]).exit_code == 2
    assert holding(space.path) == []


def test_a_value_is_found_in_a_model_as_a_category_and_as_a_slice() -> None:
    for artifact in (b'["a", "card-1"]', b'{"name":"card = card-1"}', b"| card = card-1 | 7 |", b'{"name":"card = card-1 and x >= 2"}'):
        assert holds_value(artifact, "card-1")
    for artifact in (b'["card-12"]', b'{"name":"card = card-12"}', b"nothing of card-1 here"):
        assert not holds_value(artifact, "card-1")
