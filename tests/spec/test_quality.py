"""What may be promised of a measure, and what a promise says of a value."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

import delivery
import mainspring as ms
from mainspring.errors import DeclarationError
from mainspring.measures import MEASURES
from mainspring.metrics import METRICS
from mainspring.spec import Quality, System

binary = dataclasses.replace(delivery.system.model, objective="binary", interval=None)


def declared(*quality: Quality, **changes: Any) -> System:
    return dataclasses.replace(delivery.system, requirements=ms.Requirements(quality=quality), **changes)


WRONG: list[tuple[Callable[[], Any], tuple[str, ...]]] = [
    (lambda: ms.at_least("recal", 0.5, at_alert_rate=0.1), ("Quality 'recal'", "Did you mean 'recall'?")),
    (lambda: ms.at_most("made_up", 1), ("'made_up'", "measure")),
    (lambda: ms.at_least("recall", 0.5), ("'recall'", "at_threshold= or at_alert_rate=")),
    (lambda: ms.at_least("recall", 0.5, at_threshold=0.5, at_alert_rate=0.1), ("give one of",)),
    (lambda: ms.at_least("recall", 0.5, alert_rate=0.1), ("no option 'alert_rate'", "'at_alert_rate'")),
    (lambda: ms.at_least("recall", 0.5, at_alert_rte=0.1), ("no option", "at_alert_rate")),
    (lambda: ms.at_least("recall", 0.5, at_alert_rate=1.5), ("at_alert_rate=1.5", "share")),
    (lambda: ms.at_least("recall", 0.5, at_alert_rate=True), ("at_alert_rate=True",)),
    (lambda: ms.at_least("ndcg", 0.5, k=0), ("k=0", "places")),
    (lambda: ms.at_least("ndcg", 0.5, gains="cubic"), ("'cubic'", "'exponential'")),
    (lambda: ms.at_most("pinball", 0.5), ("quantile=",)),
    (lambda: ms.at_most("pinball", 0.5, quantile=1.0), ("quantile=1.0",)),
    (lambda: ms.at_most("mae", 0.5, k=3), ("no option 'k'",)),
    (lambda: ms.between("coverage", 0.9, 0.8), ("0.9", "above", "0.8")),
    (lambda: Quality("mae"), ("lower or an upper",)),
    (lambda: Quality("coverage", low=0.5, of="line"), ("'coverage'", "aims at a level")),
    (lambda: declared(ms.at_least("recall", 0.5, at_alert_rate=0.1)), ("System 'delivery'", "'recall' does not fit", "regression", "mae")),
    (lambda: declared(ms.at_most("mae", 1.0), model=binary), ("'mae' does not fit", "binary", "roc_auc")),
    (lambda: declared(ms.between("coverage", 0.7, 0.9), model=ms.LightGBM()), ("no interval", "LightGBM(interval=")),
    (lambda: declared(ms.at_most("mae", 1.0, of="lin")), ("'mae / lin <= 1'", "Did you mean 'line'?")),
    (lambda: ms.Costs(tp=5, fp=1, fn=2), ("cheaper",)),
    (
        lambda: dataclasses.replace(delivery.system, requirements=ms.Requirements(costs=ms.Costs(tp=0, fp=1, fn=9))),
        ("costs", "two classes", "regression"),
    ),
]


@pytest.mark.parametrize(("make", "said"), WRONG)
def test_what_cannot_be_promised_is_refused_with_the_mend(make: Callable[[], Any], said: tuple[str, ...]) -> None:
    with pytest.raises(DeclarationError) as caught:
        make()
    for part in said:
        assert part in str(caught.value)


def test_a_promise_reads_as_it_was_declared() -> None:
    assert str(ms.at_least("recall", 0.5, at_alert_rate=0.005)) == "recall at alert_rate 0.005 >= 0.5"
    assert str(ms.at_most("mae", 0.8, of="line")) == "mae / line <= 0.8"
    assert str(ms.between("coverage", 0.75, 0.85)) == "coverage in [0.75, 0.85]"
    assert ms.at_least("ndcg", 0.4, k=10, gains="linear").subject == "ndcg at gains linear k 10"


def test_a_system_with_options_and_costs_comes_back_from_json() -> None:
    needs = ms.Requirements(quality=[ms.at_least("recall", 0.5, at_alert_rate=0.005)], costs=ms.Costs(tp=1, fp=2, fn=30))
    system = dataclasses.replace(delivery.system, requirements=needs, model=binary, owner="the depot")
    again = System.from_json(system.to_json())
    assert (again, again.hash) == (system, system.hash)


def test_declarations_written_without_options_are_still_read() -> None:
    body = json.loads(delivery.system.to_json())
    needs = body["declaration"]["requirements"]
    del needs["costs"], body["declaration"]["owner"]
    for quality in needs["quality"]:
        del quality["options"]
    assert System.from_json(json.dumps(body)) == delivery.system


def test_a_value_holds_and_an_interval_refutes() -> None:
    quality = ms.between("coverage", 0.75, 0.85)
    assert [quality.holds(value) for value in (0.74, 0.75, 0.85, 0.86)] == [False, True, True, False]
    assert [quality.missed_by(*ends) for ends in ((0.6, 0.74), (0.7, 0.76), (0.8, 0.9), (0.86, 0.9))] == [True, False, False, True]
    assert not quality.missed_by(float("-inf"), float("inf"))


def test_what_is_declared_of_measures_is_what_is_computed() -> None:
    assert list(MEASURES) == list(METRICS)
    for name, measure in MEASURES.items():
        assert (measure.name, measure.better, measure.kind, measure.options) == (
            name,
            METRICS[name].better,
            METRICS[name].kind,
            METRICS[name].options,
        )
        assert set(measure.needed) <= set(measure.options)
