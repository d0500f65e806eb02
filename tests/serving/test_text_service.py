"""Free text from events through training and registry to an answer whose reasons are words."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import mainspring as ms
from mainspring.clock import DAY, HOUR, parse_instant
from mainspring.errors import DeclarationError
from mainspring.gateway.backend import opened
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry.registry import Registry
from mainspring.spec import System
from mainspring.storage.event_log import EventLog
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder

START = parse_instant("2025-01-01")
NOW = START + 20 * DAY

messages = ms.Source(
    "messages", {"message": str, "sent_at": datetime, "sender": str, "body": str | None}, event_time="sent_at", event_id="message"
)
verdicts = ms.Source("verdicts", {"message": str, "told_at": datetime, "spam": bool}, event_time="told_at", event_id="message")
system = ms.System(
    "spam",
    question="Is this message spam?",
    request=messages,
    features=[messages["body"], messages.per("sender").count("1d")],
    label=ms.Label(verdicts, "spam", on="message", matures_after="1d"),
    model=ms.Linear(objective="binary", text=[ms.Text("body")], holdout="5d"),
)


def build(space: Workspace) -> None:
    rng = np.random.default_rng(0)
    sent = np.sort(START + rng.integers(0, 19 * DAY, 1_500))
    spam = rng.random(1_500) < 0.4
    words = np.where(spam, rng.choice(["prize", "winner", "credit"], 1_500), rng.choice(["dinner", "meeting", "thanks"], 1_500))
    columns = {"message": [f"m{i}" for i in range(1_500)], "sent_at": sent, "sender": rng.choice(["a", "b", "c"], 1_500).tolist()}
    told = pa.table({"message": columns["message"], "told_at": sent + HOUR, "spam": spam})
    tables = {"messages": pa.table({**columns, "body": [f"your {word} for today" for word in words.tolist()]}), "verdicts": told}
    space.path.mkdir()
    log, registry, offline = EventLog(space.events), Registry(space.registry), Tables(space.tables)
    ingestor = Ingestor(log, {one.name: one for one in (messages, verdicts)}, Quarantine(space.quarantine))
    for name, table in tables.items():
        ingestor.ingest(name, table, at=NOW)
    offline.catch_up(log)
    registry.register("system", system.name, {"hash": system.hash}, {"system.json": system.to_json().encode()}, at=NOW)
    retrainer = Retrainer(system, registry, DatasetBuilder(system, offline), "test", threads=1)
    version, _ = retrainer.train(retrainer.dataset(NOW), NOW)
    registry.decide(system.name, "promote", version.id, at=NOW, by="test", reason="test")
    registry.close()
    log.close()


def test_an_answer_names_the_words_that_moved_it(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "space")
    build(space)
    with opened(space, stream=True) as backend:
        row = {"message": "new", "sent_at": NOW, "sender": "a", "body": "Your PRIZE today"}
        answer = backend.answer(row, request_id="r", explain=True)
        empty = backend.answer({**row, "body": None}, request_id="n", explain=True)
    assert answer.answered_by == empty.answered_by == "model"
    assert answer.prediction > 0.9
    assert (answer.reasons[0].feature, answer.reasons[0].value) == ("body", "prize")
    assert answer.reasons[0].effect > 0
    assert {one.feature for one in empty.reasons} == {"body", "sender__count_1d"}
    logged = PredictionLog(space.predictions).read()[0].to_pylist()
    assert "body: prize" in str(logged[0]["reasons"])
    assert logged[0]["request.body"] == "Your PRIZE today"


def test_a_declaration_with_text_comes_back_from_json_and_is_checked() -> None:
    assert System.from_json(system.to_json()).hash == system.hash
    for text, words in (("bodi", "there is no 'bodi'. Did you mean 'body'"), ("sender__count_1d", "is int, free text is str")):
        with pytest.raises(DeclarationError, match=words):
            replace(system, model=ms.Linear(objective="binary", text=[ms.Text(text)]))
