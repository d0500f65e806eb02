"""Printing the skew reports: of what was served, and of what training would see in hindsight."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli.systems import open_registry
from mainspring.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.feature_store.offline import OfflineStore
    from mainspring.feature_store.skew import Skew
    from mainspring.spec import System
    from mainspring.storage.workspace import Workspace

_MENDS = {
    "late event": "events reach the log too late, or the consumer of the log lags: look at the server's log",
    "expired": "raise max_age, or see why newer facts came late",
    "version": "train and promote a version of the present declaration: mainspring run {system}",
    "code": "a function or what it calls has changed: train again, or change it back",
    "unavailable": "the online store is too slow or damaged: raise policy feature_deadline, or rebuild it from the log",
    "unexplained": "report it with this output: no state of the log gives these values",
}


def show_skew(system: System, space: Workspace, *, as_json: bool) -> bool:
    """Print the skew of what was served; whether any value differs.

    Raises:
        StorageError: the workspace holds no answers.
    """
    from mainspring.feature_store.skew import served_versions, skew
    from mainspring.storage.prediction_log import PredictionLog

    with open_registry(space.path) as registry:
        versions = served_versions(registry, system.name)
    predictions, _ = PredictionLog(space.predictions).read()
    if not len(predictions):
        raise StorageError(f"{space.path} has answered no request yet. Let it answer some: mainspring serve {system.name}")
    found = skew(system, predictions, _offline(system, space), versions)
    if as_json:
        click.echo(json.dumps({**asdict(found), "differences": found.differences}, default=str))
    else:
        _print_skew(found, system.name)
    return found.differences > 0


def show_hindsight(system: System, space: Workspace, rows: int, *, as_json: bool) -> bool:
    """Print how late facts would flatter training on the newest ``rows`` requests; whether any value would change."""
    from mainspring.clock import SystemClock
    from mainspring.feature_store.hindsight import hindsight

    store = _offline(system, space)
    found = hindsight(system, _newest_requests(system, space, rows), store, known_until=SystemClock().now())
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return bool(found.features)
    click.echo(f"{found.rows:,} requests, features as known when asked against features from all facts known by now")
    for name, one in sorted(found.features.items(), key=lambda item: -item[1].differing):
        click.echo(f"  {name:<40} {one.differing:>9,} differ  |r| with the label {_number(one.as_known)} -> {_number(one.in_hindsight)}")
    click.echo("Next: train as known (known_as_of=True, as here)." if found.features else "Late facts would change nothing.")
    return bool(found.features)


def _print_skew(found: Skew, system: str) -> None:
    click.echo(
        f"{found.values:,} served values of {found.requests:,} requests recomputed: {found.differences:,} differ, "
        f"{found.unavailable:,} were unavailable ({found.examined:,} requests examined for causes)"
    )
    for feature, counts in found.causes.items():
        for cause, count in counts.items():
            click.echo(f"  {feature:<40} {count:>7,}  {cause}")
            for one in found.examples:
                if (one.feature, one.cause) == (feature, cause):
                    click.echo(f"      {one.request_id}  served {one.served!r}, recomputed {one.recomputed!r}  {one.note}")
    met = dict.fromkeys(cause for counts in found.causes.values() for cause in counts)
    for cause in met:
        click.echo(f"Next, {cause}: {_MENDS[cause].format(system=system)}")
    if not met:
        click.echo(f"Nothing differs. Next: mainspring verify {system}")


def _offline(system: System, space: Workspace) -> OfflineStore:
    from mainspring.feature_store.offline import OfflineStore
    from mainspring.storage.stores import open_log
    from mainspring.storage.tables import Tables

    tables = Tables(space.tables)
    tables.catch_up(open_log(space.events_url))
    return OfflineStore(system, tables.files)


def _newest_requests(system: System, space: Workspace, rows: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mainspring.feature_store.offline import AS_OF
    from mainspring.schema import EVENT_TIME
    from mainspring.storage.tables import Tables

    files = Tables(space.tables).files(system.request.name)
    if not files:
        raise StorageError(f"{space.path} holds no facts of '{system.request.name}'. Run it: mainspring run {system.name}")
    table = pa.concat_tables([pq.read_table(file) for file in files], promote_options="permissive").sort_by(EVENT_TIME)
    table = table.slice(max(0, len(table) - rows))
    return table.append_column(AS_OF, table.column(EVENT_TIME)).combine_chunks()


def _number(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"
