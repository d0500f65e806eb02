"""Declarations: what is refused and how, hashes, JSON there and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

import delivery
import mainspring as ms
from mainspring.columns import to_array
from mainspring.errors import DeclarationError
from mainspring.schema import Type
from mainspring.spec.evaluate import apply_functions
from mainspring.systems.eta import system as eta

SCHEMA: dict[str, Any] = {"id": str, "at": datetime, "k": str, "x": float | None, "flag": bool, "n": int}


def source(**changes: Any) -> ms.Source:
    return ms.Source(**{"name": "s", "schema": SCHEMA, "event_time": "at", "event_id": "id", **changes})


def declared(**changes: Any) -> ms.System:
    one = source()
    plain: dict[str, Any] = {
        "name": "sys", "question": "?", "request": one, "features": [one["x"]], "label": ms.Label(source(name="l"), "x", "id", "1d"),
        "model": ms.LightGBM(),
    }  # fmt: skip
    return ms.System(**{**plain, **changes})


@ms.feature
def double(x):  # type: ignore[no-untyped-def]
    return 2 * x


@ms.feature
def quadruple(double):  # type: ignore[no-untyped-def]
    return 2 * double


@ms.feature
def chicken(egg):  # type: ignore[no-untyped-def]
    return egg


@ms.feature
def egg(chicken):  # type: ignore[no-untyped-def]
    return chicken


other = source(name="o", schema={**SCHEMA, "k": int})
BAD: list[tuple[Callable[[], Any], tuple[str, ...]]] = [
    (lambda: source(name="a b"), ("Source 'a b'", "letters")),
    (lambda: source(event_time="when"), ("Source 's'", "no column 'when'", "Known:")),
    (lambda: source(event_time="x"), ("'x' is float", "datetime")),
    (lambda: source(event_id="idd"), ("'idd'", "Did you mean 'id'?")),
    (lambda: source(event_id="x"), ("event_id", "nullable")),
    (lambda: source(event_id="flag"), ("event_id 'flag'", "str or int")),
    (lambda: source(known_time="x"), ("'x' is float", "datetime")),
    (lambda: source(kind="stream"), ("kind 'stream'", "'event' or 'table'")),
    (lambda: source(ranges={"k": (0, 1)}), ("'k' is str", "range")),
    (lambda: source(ranges={"x": (2, 1)}), ("range of 'x' is empty",)),
    (lambda: source(derive=[quadruple]), ("derived column 'quadruple'", "no column 'double'")),
    (lambda: source(schema={**SCHEMA, "double": float}, derive=[double]), ("derived column 'double'", "name of a column")),
    (lambda: source()["amout"], ("Source 's'", "no column 'amout'")),
    (lambda: source(allowed={"kk": ["a"]}), ("no column 'kk'",)),
    (lambda: source(allowed={"x": [1.0]}), ("'x' is float", "allowed= needs str or int")),
    (lambda: source(allowed={"k": []}), ("the allowed values of 'k' must be str, and at least one",)),
    (lambda: source(allowed={"n": [True]}), ("the allowed values of 'n' must be int",)),
    (lambda: source(name="s" * 101), ("at most 100 bytes",)),
    (lambda: source(ranges={"at": ("soon", None)}), ("Source 's'", "bound 'soon'")),
    (lambda: source(expect=[ms.Unique("kk")]), ("Source 's', Unique(column='kk')", "no column 'kk'")),
    (lambda: source(expect=[ms.Unique("id")]), ("'id' is the event id, which may repeat",)),
    (lambda: source(expect=[ms.Fixed(["k", "id"])]), ("'id' is the event id, which may repeat",)),
    (lambda: source(expect=[ms.Nulls("k", at_most=0.1)]), ("never null", "'| None'")),
    (lambda: source(expect=[ms.Ahead("1h"), ms.Ahead("1h")]), ("declared twice",)),
    (lambda: ms.Fixed("k"), ("Fixed('k')", "list of columns")),
    (lambda: ms.Fixed([]), ("list of columns",)),
    (lambda: ms.Nulls("x", at_most=5), ("at_most=5 is no share",)),
    (lambda: ms.Rows(), ("at_least=None", "every one does")),
    (lambda: ms.Rows(at_least=3, at_most=2), ("no batch could hold",)),
    (lambda: ms.Fresh("soon"), ("'soon'", "'10m'")),
    (lambda: declared(name="s" * 101), ("at most 100 bytes",)),
    (lambda: source().per(), ("per()", "name=")),
    (lambda: source().per("kk"), ("no column 'kk'", "Did you mean 'k'?")),
    (lambda: source().per("k", on=["a", "b"]), ("2 columns for 1 keys",)),
    (lambda: source().per("k").sum("xx", "1h"), ("s.per('k').sum('xx'", "no column 'xx'", "Did you mean 'x'?")),
    (lambda: source().per("k").sum("k", "1h"), ("'k' is str", "sum needs")),
    (lambda: source().per("k").min("flag"), ("'flag' is bool", "min needs")),
    (lambda: source().per("k").mean("x", "an hour"), ("'an hour'", "'10m'")),
    (lambda: source().per("k").top_k("x", 0), ("k is 0", "1 to 1,000")),
    (lambda: source().per("k").approx_percentile("x", 95), ("the quantile is 95", "0 to 1")),
    (lambda: source().per("k").histogram("x", [2, 1]), ("the edges are (2.0, 1.0)",)),
    (lambda: source().per("k").ewma("x", "soon"), ("'soon'",)),
    (lambda: source().per("k").count("1h", where="x"), ("'x' is float", "where= needs bool")),
    (lambda: source().per("k").count("1h", by="x"), ("'x' is float", "by= needs str or int or bool")),
    (lambda: source().per("k").last("x", where="flag"), ("no where= or by=",)),
    (lambda: source().per("k").last("x", "1h", max_age="2h"), ("max_age belongs to last without a window",)),
    (lambda: declared(features=[source().per("k").top_k("x", 3)]), ("is a list or map", "ignore=")),
    (lambda: ms.feature(lambda *a: a), ("plain names",)),
    (lambda: ms.feature(type=bytes)(lambda x: x), ("bytes",)),
    (lambda: declared(name="a-b"), ("'a-b'", "letters")),
    (lambda: declared(features=[source()["x"], source()["x"]]), ("System 'sys'", "two features are named 'x'", "name=")),
    (lambda: declared(features=[quadruple]), ("feature function 'quadruple', input", "no 'double'")),
    (lambda: declared(features=[chicken, egg]), ("chicken, egg", "circle")),
    (lambda: declared(features=[other.per("k").count("1h")]), ("request column 'k' is str", "'o.k' is int")),
    (lambda: declared(features=[source(name="z").per("k", on="kk").count()]), ("no 'kk'", "Did you mean 'k'?")),
    (lambda: declared(features=[source(schema={**SCHEMA, "more": int}).per("k").count()]), ("two different sources are named 's'",)),
    (
        lambda: declared(features=[source().per("k").count(), source(name="t").per("k").count("1h")]),
        ("two different views are named 'k'", "name="),
    ),
    (lambda: declared(features=[source()["at"]]), ("'at' is an instant", "ignore=")),
    (lambda: declared(model=ms.LightGBM(offset="y")), ("model", "no 'y'")),
    (lambda: declared(model=ms.LightGBM(ignore=["y"])), ("no 'y'",)),
    (lambda: declared(label=ms.Label(source(name="l", schema={**SCHEMA, "ref": str}), "x", "ref", "1d")), ("label", "no column 'ref'")),
    (lambda: declared(baselines=[ms.LinearRule("line", on="y")]), ("baseline 'line'", "no 'y'")),
    (lambda: declared(baselines=[ms.RecentRatio("r", ms.GroupMedian("m", ["k"]), band="k")]), ("baseline 'r'", "no 'm'")),
    (lambda: declared(policy=ms.Policy(["last"])), ("fallback", "no 'last'", "previous")),
    (lambda: declared(requirements=ms.Requirements(quality=[ms.at_most("mae", 1, of="m")])), ("mae / m <= 1", "no 'm'")),
    (lambda: declared(monitors=[ms.Monitor("error", by=["place"])]), ("monitor 'error'", "no 'place'")),
    (lambda: declared(rollout=ms.Rollout(unit="user")), ("rollout, unit", "no 'user'")),
    (lambda: ms.Label(source(), "y", "id", "1d"), ("Label", "no column 'y'")),
    (lambda: ms.LightGBM(objective="poisson"), ("objective 'poisson'", "Known:")),
    (lambda: ms.LightGBM(trees=0), ("trees >= 1",)),
    (lambda: ms.LightGBM(interval=(0.9, 0.1)), ("interval", "rising")),
    (lambda: ms.Monitor("drfit"), ("'drfit'", "'error' or 'drift'")),  # type: ignore[arg-type]
    (lambda: ms.Rollout(unit="k", steps=(0.1, 0.5)), ("steps", "exactly 1.0")),
    (lambda: ms.Rollout(unit="k", margin=0), ("margin > 0",)),
    (lambda: ms.Requirements(availability=99.9), ("availability 99.9", "between 0 and 1")),
    (lambda: ms.Requirements(latency_p99="fast"), ("'fast'", "'10m'")),
]


@pytest.mark.parametrize(("make", "said"), BAD, ids=[said[0][:40] for _, said in BAD])
def test_a_bad_declaration_is_refused_with_the_thing_the_place_and_the_mend(make: Callable[[], Any], said: tuple[str, ...]) -> None:
    with pytest.raises(DeclarationError) as caught:
        make()
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize("system", [delivery.system, eta], ids=["delivery", "eta"])
def test_json_there_and_back(system: ms.System) -> None:
    again = ms.System.from_json(system.to_json())
    assert again == system
    assert again.hash == system.hash
    assert again.to_json() == system.to_json()
    assert again.feature_hashes == system.feature_hashes


def test_expectations_travel_and_count_in_the_hash_of_the_system() -> None:
    every = [ms.Ahead("5m"), ms.Unique("x"), ms.Fixed(["k", "n"]), ms.Nulls("x", 0.1, refuse=True), ms.Fresh("1h"), ms.Rows(1, 9)]
    one = source(expect=every)
    system = declared(request=one, features=[one["x"]])
    assert ms.System.from_json(system.to_json()).request.expect == tuple(every)
    assert system.hash != declared().hash


def test_the_hash_follows_every_part() -> None:
    system = delivery.system
    assert dataclasses.replace(system).hash == system.hash
    changes: list[dict[str, Any]] = [
        {"question": "Other?"}, {"model": ms.LightGBM(trees=31)}, {"features": system.features[:-1]}, {"policy": ms.Policy()},
        {"monitors": [ms.Monitor("drift")]}, {"rollout": None}, {"requirements": ms.Requirements()},
    ]  # fmt: skip
    hashes = {dataclasses.replace(system, **change).hash for change in changes}
    assert len(hashes | {system.hash}) == len(changes) + 1


def test_declarations_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        delivery.system.name = "other"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        delivery.drives.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', "null"])
def test_foreign_json_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError, match="Declaration"):
        ms.System.from_json(text)


def test_changed_and_vanished_functions_are_refused() -> None:
    body = json.loads(delivery.system.to_json())
    feature = next(one for one in body["declaration"]["features"] if "$function" in one)
    feature["code"] = "0" * 16
    with pytest.raises(DeclarationError, match=r"'hour'.*changed"):
        ms.System.from_json(json.dumps(body))
    feature["$function"] = "delivery:gone"
    with pytest.raises(DeclarationError, match="cannot be imported"):
        ms.System.from_json(json.dumps(body))


def test_functions_come_after_what_they_read() -> None:
    system = declared(features=[quadruple, double])
    assert [function.name for function in system.functions] == ["double", "quadruple"]
    got = apply_functions(system.functions, {"x": np.array([1.0, np.nan])})
    assert got["quadruple"].tolist() == pytest.approx([4.0, np.nan], nan_ok=True)


def test_printing_names_every_part() -> None:
    text = str(eta)
    for part in ("request   trips", "route__minutes_mean_7d: float", "fallback  model -> previous -> distance_rule", "1% -> 10% -> 100%"):
        assert part in text


def test_what_functions_may_return() -> None:
    x = {"x": np.array([1.0, -1.0, 0.0])}
    root = ms.feature(default=9.0)(lambda x: np.sqrt(x))
    assert apply_functions([root], x)["<lambda>"].tolist() == [1.0, 9.0, 0.0]
    with pytest.raises(DeclarationError, match="one value per row"):
        apply_functions([ms.feature(lambda x: x[:1])], x)
    with pytest.raises(DeclarationError, match="ZeroDivisionError"):
        apply_functions([ms.feature(lambda x: 1 // 0)], x)
    with pytest.raises(DeclarationError, match="not int"):
        apply_functions([ms.feature(type=int)(lambda x: x + 0.5)], x)
    text = apply_functions([ms.feature(type=str)(lambda x: to_array(["a", None, "b"], Type.STR))], x)
    assert text["<lambda>"].tolist() == ["a", None, "b"]
