"""The ``features`` verb: the catalog of a system's features."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainspring.feature_store.catalog import Entry

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def features() -> None:
    """The catalog: what each feature is, where it comes from, who uses it. The stream that keeps their online store.

    \b
    Example:
      mainspring features list eta
      mainspring features show eta destination_air
      mainspring features lineage eta destination_air
      mainspring features search eta "delay aircraft"
      mainspring features breaks eta
      mainspring features stream eta --workers 2
      mainspring features dead-letters list eta
      mainspring features skew eta
    """


@features.command("list")
@click.argument("system")
@json_option
def list_features(system: str, as_json: bool) -> None:
    """Every feature of a system."""
    from mainspring.cli.systems import find_system
    from mainspring.feature_store.catalog import catalog

    _print(list(catalog(find_system(system).system).values()), as_json=as_json)


@features.command()
@click.argument("system")
@click.argument("text")
@json_option
def search(system: str, text: str, as_json: bool) -> None:
    """Features whose name, description, owner, tags or source columns hold every word."""
    from mainspring.cli.systems import find_system
    from mainspring.feature_store.catalog import search as found

    _print(found(find_system(system).system, text), as_json=as_json)


@features.command()
@click.argument("system")
@click.argument("name")
@json_option
def show(system: str, name: str, as_json: bool) -> None:
    """One feature: type, version, owner, what it reads, who reads it."""
    from mainspring.cli.systems import find_system
    from mainspring.feature_store.catalog import find

    entry = asdict(find(find_system(system).system, name))
    if as_json:
        click.echo(json.dumps(entry))
        return
    for field, value in entry.items():
        click.echo(f"{field:<12} {', '.join(value) if isinstance(value, tuple) else value}")


@features.command()
@click.argument("system")
@click.argument("name")
def lineage(system: str, name: str) -> None:
    """From source columns through features to who uses it, as a tree."""
    from mainspring.cli.systems import find_system
    from mainspring.feature_store.catalog import catalog, find

    declared = find_system(system).system
    entry, entries = find(declared, name), catalog(declared)
    _upstream(entry, entries, 0)
    for user in entry.used_by:
        click.echo(f"  -> {user}")


@features.command()
@click.argument("system")
@click.option("--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system.")
@json_option
def breaks(system: str, workspace: Path | None, as_json: bool) -> None:
    """Which model versions of a run the declaration no longer fits, and by which features. Exit code 9 when a live one is among them."""
    from mainspring.cli.systems import find_system, newest_workspace, open_registry
    from mainspring.feature_store.catalog import breaks as broken

    declared = find_system(system).system
    with open_registry(workspace or newest_workspace(system)) as registry:
        live = registry.deployment(system)
        found = {version.id: broken(declared, version.manifest["features"]) for version in registry.versions("model", system)}
    if as_json:
        click.echo(json.dumps(found))
    else:
        for version, why in found.items():
            click.echo(f"{version:<16} {'; '.join(f'{name} {what}' for name, what in why.items()) or 'fits'}")
    if any(found.get(version or "") for version in (live.champion, live.challenger)):
        raise SystemExit(9)


@features.command()
@click.argument("system")
@click.option("--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system.")
@click.option(
    "--online", default=None, help="Address of another online store to fill: lmdb:FOLDER or redis://HOST:PORT/DATABASE#NAMESPACE."
)
@json_option
def materialise(system: str, workspace: Path | None, online: str | None, as_json: bool) -> None:
    """Bring the online store up to the end of the event log. It goes on where it was, whatever stopped it, and may run beside a stream.

    \b
    Example:
      mainspring features materialise eta
      mainspring features materialise eta --online redis://127.0.0.1:6379/0#eta
    """
    import time

    from mainspring.cli.progress import Bars
    from mainspring.cli.systems import find_system, newest_workspace
    from mainspring.feature_store.online import OnlineStore
    from mainspring.storage.stores import open_key_value, open_log
    from mainspring.storage.workspace import Workspace

    place = Workspace(workspace or newest_workspace(system))
    url = online or place.online_url
    store, log = OnlineStore(find_system(system).system, open_key_value(url)), open_log(place.events_url)
    started, begin = time.perf_counter(), store.reached(log)
    with Bars(quiet=as_json) as bars:
        end = store.apply(log, progress=lambda done, total: bars.step("materialise", done, total))
    told = {"store": url, "from": begin, "to": end, "seconds": round(time.perf_counter() - started, 3)}
    click.echo(json.dumps(told) if as_json else f"{url} holds events 0 to {end:,}: {end - begin:,} were added in {told['seconds']} s.")


@features.command()
@click.argument("system")
@click.option("--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system.")
@click.option("--training", is_flag=True, help="Not what was served, but what training sets would hold if late facts were counted.")
@click.option("--rows", default=100_000, show_default=True, help="How many of the newest requests are recomputed with --training.")
@json_option
def skew(system: str, workspace: Path | None, training: bool, rows: int, as_json: bool) -> None:
    """Recompute what was served, and say which values differ and why. Exit code 9 when any do.

    \b
    Causes:
      late event    an earlier state of the log, or facts known only later, give what was served
      expired       max_age held for one side and not for the other
      version       the feature was declared otherwise when it was served
      code          a function gives another value for the inputs that it was given
      unavailable   the store had not answered: defaults were served (not counted as differing)
      unexplained   none of these
    """
    from mainspring.cli.skew import show_hindsight, show_skew
    from mainspring.cli.systems import find_system, newest_workspace
    from mainspring.storage.workspace import Workspace

    declared, space = find_system(system).system, Workspace(workspace or newest_workspace(system))
    differ = show_hindsight(declared, space, rows, as_json=as_json) if training else show_skew(declared, space, as_json=as_json)
    if differ:
        raise SystemExit(9)


def _print(entries: Sequence[Entry], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries]))
        return
    for entry in entries:
        click.echo(f"{entry.name:<36} {entry.type:<6} {entry.version}  {entry.description}")


def _upstream(entry: Entry, entries: dict[str, Entry], depth: int) -> None:
    click.echo(f"{'  ' * depth}{entry.name}  ({entry.kind}, {entry.version})")
    for name in entry.inputs:
        if name in entries:
            _upstream(entries[name], entries, depth + 1)
        else:
            click.echo(f"{'  ' * (depth + 1)}{name}")
