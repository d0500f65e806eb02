"""What a card says, and what it says of what is not there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import delivery
import mainspring as ms
from mainspring.clock import DAY
from mainspring.design.card_html import html
from mainspring.evaluation.card import Card, limits, markdown
from mainspring.evaluation.evaluate import Held, evaluate
from mainspring.evaluation.measuring import Answers
from mainspring.model_registry import ModelManifest

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(30, 10, 900)


def card(*, days: int | None = 40, split: dict[str, Any] | None = None, **changes: Any) -> Card:
    as_of = None if days is None else np.sort(RNG.integers(0, days * DAY, 900))
    found = evaluate("regression", Held(TRUTH, as_of), Answers(TRUTH + RNG.normal(size=900)), split=split)
    system = dataclasses.replace(delivery.system, owner="the depot")
    known = {"version": "model:delivery:7", "registered": 0, "manifest": ModelManifest(), "dataset": {}, "run": "", "evaluation": found}
    return Card(**{"system": system, **known, **changes})


def test_an_evaluation_with_nothing_but_measures_makes_a_card() -> None:
    for one in (card(), card(days=None)):
        text, page = markdown(one), html(one)
        for part in (
            "There was nothing to compare with.",
            "No slice is declared",
            "None was found",
            "not recorded",
            "No quality is declared.",
        ):
            assert part in text
            assert part in page
        assert page.count("<figure>") == 1


def test_limits_are_what_the_evidence_lacks() -> None:
    few = limits(card(days=6, split={"also used for": ["early stopping", "the interval"]}))
    assert "Not measured: coverage, the model gives no interval." in few
    assert "Intervals draw whole days, of which there are about 6: few, so that intervals may be too short." in few
    assert "The same held-out rows served for early stopping and the interval: measures that rest on it are flattered." in few
    assert not [one for one in limits(card(days=60)) if "days" in one or "served for" in one]
    needs = ms.Requirements(latency_p99="50ms", availability=0.99)
    promised = limits(card(system=dataclasses.replace(delivery.system, requirements=needs)))
    assert promised[0] == "No owner is declared."
    assert "latency p99, availability" in promised[1]


def test_a_card_shows_what_was_recorded() -> None:
    manifest = ModelManifest(dataset="dataset:delivery:7", seed=3, code="abc", licence="Apache-2.0", environment={"numpy": "2.4"})
    label = {"mean": 30.0, "least": 1.0, "most": 90.0}
    dataset = {"rows": 4_000, "from": None, "until": delivery.NOW, "label": label, "sources": {"drives": {}}, "hash": "ff00", "nulls": {}}
    text = markdown(card(manifest=manifest, dataset=dataset, run="a1b2", decisions=[(0, "gate_passed", "MAE | fine")]))
    for part in (
        "4,000",
        "1 to 90, mean 30",
        "dataset:delivery:7",
        "ff00",
        "Apache-2.0",
        "numpy 2.4",
        "a1b2",
        "gate passed",
        "MAE \\| fine",
    ):
        assert part in text
