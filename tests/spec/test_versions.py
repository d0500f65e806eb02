"""A feature's version follows what its values depend on, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

import mainspring as ms
from mainspring.errors import DeclarationError
from mainspring.feature_store.catalog import breaks, catalog, find, search
from mainspring.spec import Function
from mainspring.spec.versions import feature_versions

SCHEMA: dict[str, Any] = {"id": str, "at": datetime, "card": str, "amount": float, "country": str | None}


@ms.feature(type=bool)
def large(amount):  # type: ignore[no-untyped-def]
    """Whether the amount is large."""
    return amount > 100


@ms.feature
def ratio(amount, card__amount_mean_1d):  # type: ignore[no-untyped-def]
    """Amount over the card's mean."""
    return amount / card__amount_mean_1d


@ms.feature
def twice(ratio):  # type: ignore[no-untyped-def]
    return 2 * ratio


def built(**changes: Any) -> ms.System:
    given: dict[str, Any] = {"schema": SCHEMA, "derive": [large], "window": "1d", "ratio": ratio, "kind": "event", **changes}
    options = {name: given[name] for name in ("owner", "tags", "description", "ranges", "expect") if name in given}
    source = ms.Source("payments", given["schema"], event_time="at", event_id="id", derive=given["derive"], kind=given["kind"], **options)
    card = source.per("card")
    mean = card.mean("amount", given["window"], name="card__amount_mean_1d", description=given.get("about", ""))
    many = card.count("1h", where="large")
    label = ms.Label(source, "amount", on="id", matures_after="1d")
    return ms.System("s", "?", source, [source["amount"], mean, many, given["ratio"], twice], label, ms.LightGBM())


def versions(system: ms.System) -> dict[str, str]:
    return feature_versions(system.features, system.request)


def changed(function: Function, code: Callable[..., Any]) -> Function:
    return dataclasses.replace(function, function=code)


def other_large(amount):  # type: ignore[no-untyped-def]
    return amount > 200


def other_ratio(amount, card__amount_mean_1d):  # type: ignore[no-untyped-def]
    return amount / (1 + card__amount_mean_1d)


EVERYTHING = {"amount", "card__amount_mean_1d", "card__count_1h_where_large", "ratio", "twice"}
COUNT = "card__count_1h_where_large"


@pytest.mark.parametrize(
    ("change", "follow"),
    [
        ({}, set()),
        ({"owner": "payments team", "tags": ["money"], "description": "Payments", "about": "Mean amount"}, set()),
        ({"ranges": {"amount": (0, 1e6)}}, set()),
        ({"expect": [ms.Ahead("5m"), ms.Fixed(["card"])]}, set()),
        ({"schema": {**SCHEMA, "more": int}}, set()),
        ({"window": "2d"}, {"card__amount_mean_1d", "ratio", "twice"}),
        ({"derive": [changed(large, other_large)]}, {COUNT}),
        ({"ratio": changed(ratio, other_ratio)}, {"ratio", "twice"}),
        ({"kind": "table"}, {"card__amount_mean_1d", COUNT, "ratio", "twice"}),
        ({"schema": {**SCHEMA, "amount": float | None}}, EVERYTHING),
        ({"schema": {**SCHEMA, "card": int}}, EVERYTHING - {"amount"}),
    ],
)
def test_a_version_follows_what_the_values_depend_on(change: dict[str, Any], follow: set[str]) -> None:
    before, after = versions(built()), versions(built(**change))
    assert {name for name in before if before[name] != after[name]} == follow


def test_the_catalog_knows_origin_owner_and_users() -> None:
    system = built(owner="payments team", tags=["money"])
    entry = find(system, "ratio")
    assert entry.description == "Amount over the card's mean."
    assert entry.inputs == ("amount", "card__amount_mean_1d")
    assert entry.origins == ("payments.amount", "payments.at", "payments.card")
    assert (entry.owners, entry.tags) == (("payments team",), ("money",))
    assert entry.used_by == ("feature twice", "model of s")
    assert catalog(system)[COUNT].description == "count over 1h per card, where large"
    with pytest.raises(DeclarationError, match="Did you mean 'ratio'"):
        find(system, "ration")


def test_a_search_finds_every_word_anywhere() -> None:
    system = built(tags=["money"])
    assert [entry.name for entry in search(system, "MONEY large")] == [COUNT]
    assert search(system, "nothing of the sort") == []


def test_what_a_change_breaks_is_named() -> None:
    trained = built().feature_hashes
    assert breaks(built(), trained) == {}
    assert breaks(built(window="2d"), trained) == dict.fromkeys(["card__amount_mean_1d", "ratio", "twice"], "has changed")
    assert breaks(built(), {**trained, "old": "0"}) == {"old": "is gone"}
    assert breaks(built(), {name: version for name, version in trained.items() if name != "twice"}) == {"twice": "is new"}
