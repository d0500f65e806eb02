"""The ``models`` verb: the versions in a system's registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mainspring.model_registry import Decision, Deployment, Difference, Registry, Version

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
workspace_option = click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system under mainspring-work/."
)
reason_option = click.option("--reason", default="by hand", show_default=True, help="Why, for the record.")


@click.group()
def models() -> None:
    """Versions of a system's model: what they are, how they differ, what they are called, whether they are what was registered.

    A version is named by its id (model:eta:3), its number (3), an alias, or as champion, previous or challenger.

    \b
    Example:
      mainspring models list eta
      mainspring models show eta champion
      mainspring models diff eta 1 champion
      mainspring models card eta --html card.html
      mainspring models alias eta last-good 1
      mainspring models history eta
      mainspring models verify eta
      mainspring models prune eta --keep 5 --dry-run
      mainspring models compress eta champion --step prune:share=0.5 --metric mae --most-lost 0.1
      mainspring models explain eta --feature departure_delay
    """


@models.command("list")
@click.argument("system")
@workspace_option
@json_option
def list_models(system: str, workspace: Path | None, as_json: bool) -> None:
    """Every model version, with its error, cost, size, and whether it is live, aliased or dropped."""
    with _opened(system, workspace) as registry:
        live, aliases, pruned = registry.deployment(system), registry.aliases(system), registry.pruned(system)
        rows = [_row(version, live, aliases, version.id in pruned) for version in registry.versions("model", system)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        error, seconds = _cell(row["mae"], 8, 3), _cell(row["seconds"], 6, 1)
        size = _cell(None if row["bytes"] is None else row["bytes"] / 1e6, 5, 2)
        state = "  ".join(filter(None, [row["state"], ", ".join(row["aliases"]), row["note"]]))
        click.echo(f"{row['id']:<16} {row['at']}  MAE {error}  {seconds} s  {size} MB  {state}")


@models.command()
@click.argument("system")
@click.argument("which")
@workspace_option
@json_option
def show(system: str, which: str, workspace: Path | None, as_json: bool) -> None:
    """All that is known of one version."""
    from mainspring.clock import format_instant
    from mainspring.model_registry import ModelManifest

    with _opened(system, workspace) as registry:
        version = registry.resolve(system, which)
    told = {"id": version.id, "at": format_instant(version.at), **asdict(ModelManifest.of(version))}
    told |= {"artifacts": dict(version.artifacts), "signed": bool(version.signature)}
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, value in told.items():
        lines = [f"{key}: {item}" for key, item in value.items()] if isinstance(value, dict) else [str(value)]
        for number, line in enumerate(lines or [""]):
            click.echo(f"{name if number == 0 else '':<12} {line}")


@models.command()
@click.argument("system")
@click.argument("first")
@click.argument("second")
@workspace_option
@json_option
def diff(system: str, first: str, second: str, workspace: Path | None, as_json: bool) -> None:
    """What differs between two versions: features, schema, parameters, metrics, data set, packages, code, size."""
    with _opened(system, workspace) as registry:
        found = registry.difference(registry.resolve(system, first), registry.resolve(system, second))
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(_told(found)))


@models.command()
@click.argument("system")
@click.argument("which", required=False)
@click.option("--html", "page", type=click.Path(path_type=Path), default=None, help="Write a page with plots to this file.")
@click.option("--markdown", "text", type=click.Path(path_type=Path), default=None, help="Write Markdown to this file.")
@workspace_option
def card(system: str, which: str | None, page: Path | None, text: Path | None, workspace: Path | None) -> None:
    """Write the card of a version (the champion, if none is named) from the records; as Markdown to the terminal where no file is named.

    \b
    Example:
      mainspring models card eta
      mainspring models card eta 3 --html card.html
    """
    from mainspring.cli.systems import newest_workspace
    from mainspring.design.card import card_of
    from mainspring.design.card_html import html
    from mainspring.evaluation.card import markdown
    from mainspring.storage.workspace import Workspace

    folder = workspace or newest_workspace(system)
    with _opened(system, folder) as registry:
        found = card_of(registry, Workspace(folder), registry.resolve(system, which or "champion"))
    if page is None and text is None:
        click.echo(markdown(found), nl=False)
    for file, write in ((page, html), (text, markdown)):
        if file is not None:
            file.write_text(write(found))
            click.echo(f"Wrote {file}. Next: mainspring evaluate {system} {found.version}")


@models.command()
@click.argument("system")
@click.argument("alias", required=False)
@click.argument("which", required=False)
@click.option("--remove", is_flag=True, help="Let the alias stand for nothing.")
@workspace_option
@reason_option
@json_option
def alias(system: str, alias: str | None, which: str | None, remove: bool, workspace: Path | None, reason: str, as_json: bool) -> None:
    """Let ALIAS stand for the version WHICH, or list what aliases stand for.

    \b
    Example:
      mainspring models alias eta last-good champion --reason "a quiet month"
      mainspring models alias eta last-good --remove
      mainspring models alias eta
    """
    if (alias is None) != (which is None and not remove) or (which is not None and remove):
        raise click.UsageError("Name an alias and a version, or an alias and --remove, or neither.")
    with _opened(system, workspace) as registry:
        if alias is not None:
            version = "" if which is None else registry.resolve(system, which).id
            registry.alias(system, alias, version, at=now(), by=operator(), reason=reason)
        found = registry.aliases(system)
    click.echo(json.dumps(found) if as_json else "\n".join(f"{name:<16} {version}" for name, version in found.items()))


@models.command()
@click.argument("system")
@workspace_option
@json_option
def history(system: str, workspace: Path | None, as_json: bool) -> None:
    """All that was registered and decided, in order of time."""
    from mainspring.clock import format_instant
    from mainspring.model_registry import Version

    with _opened(system, workspace) as registry:
        found = registry.history(system)
    for one in found:
        line = f"{format_instant(one.at)}  {'registered':<16} {one.id}" if isinstance(one, Version) else decision_line(one)
        told = asdict(one) | ({"manifest": dict(one.manifest)} if isinstance(one, Version) else {})
        click.echo(json.dumps(told) if as_json else line)


@models.command()
@click.argument("system")
@click.argument("which", required=False)
@workspace_option
@json_option
def verify(system: str, which: str | None, workspace: Path | None, as_json: bool) -> None:
    """Read every artifact of one version or all and hold it against its hash, and with MAINSPRING_PUBLIC_KEY set every signature.

    Exit code 9 when something is altered, missing or not signed; what was dropped by `prune` is none of these.
    """
    with _opened(system, workspace) as registry:
        pruned = registry.pruned(system)
        versions = [one for kind in ("system", "dataset", "model") for one in registry.versions(kind, system)]
        if which is not None:
            versions = [registry.resolve(system, which)]
        found = {one.id: registry.verify(one) for one in versions if one.id not in pruned}
    if as_json:
        click.echo(json.dumps(found))
    else:
        for id, problems in found.items():
            click.echo(f"{id:<20} {'; '.join(problems) or 'good'}")
    if any(found.values()):
        raise SystemExit(9)


@models.command()
@click.argument("system")
@click.option("--keep", type=click.IntRange(min=1), required=True, help="How many of the newest versions keep their artifacts.")
@click.option("--dry-run", is_flag=True, help="Only say which versions would lose them.")
@workspace_option
@reason_option
@json_option
def prune(system: str, keep: int, dry_run: bool, workspace: Path | None, reason: str, as_json: bool) -> None:
    """Drop the artifacts of versions that are neither live nor aliased nor among the newest; their records stay."""
    with _opened(system, workspace) as registry:
        gone = registry.prunable(system, keep) if dry_run else registry.prune(system, keep, at=now(), by=operator(), reason=reason)
    ids = [version.id for version in gone]
    size = sum(version.manifest.get("bytes") or 0 for version in gone)
    would = "Would drop" if dry_run else "Dropped"
    click.echo(json.dumps(ids) if as_json else f"{would} artifacts of {len(ids)} versions, {size / 1e6:.2f} MB: {', '.join(ids) or 'none'}")


def decision_line(decision: Decision) -> str:
    """A decision in one line."""
    from mainspring.clock import format_instant

    alias = f"{decision.evidence['alias']}: " if decision.action == "alias" else ""
    despite = f"; despite the gate: {decision.evidence['despite']}" if "despite" in decision.evidence else ""
    return f"{format_instant(decision.at)}  {decision.action:<16} {decision.version:<14} {alias}{decision.reason}{despite}"


def now() -> int:
    """The instant of a decision by hand."""
    from mainspring.clock import SystemClock

    return SystemClock().now()


def operator() -> str:
    """Who decides by hand: the name of the account, or its number where it has none."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


@contextmanager
def opened(system: str, workspace: Path | None) -> Iterator[tuple[Registry, Path]]:
    """The registry of a workspace, or of the newest of the system, and the workspace's folder."""
    from mainspring.cli.systems import newest_workspace, open_registry

    path = workspace or newest_workspace(system)
    with open_registry(path) as registry:
        yield registry, path


@contextmanager
def _opened(system: str, workspace: Path | None) -> Iterator[Registry]:
    with opened(system, workspace) as (registry, _):
        yield registry


def _row(version: Version, live: Deployment, aliases: dict[str, str], pruned: bool) -> dict[str, Any]:
    from mainspring.clock import format_instant
    from mainspring.model_registry import ModelManifest

    states = {live.champion: "champion", live.previous: "previous", live.challenger: f"challenger ({live.stage})"}
    manifest = ModelManifest.of(version)
    return {
        "id": version.id,
        "at": format_instant(version.at),
        "mae": manifest.metrics.get("mae"),
        "seconds": manifest.seconds,
        "bytes": manifest.bytes,
        "state": states.get(version.id, "artifacts dropped" if pruned else ""),
        "aliases": [alias for alias, id in aliases.items() if id == version.id],
        "note": manifest.note,
    }


def _cell(value: float | None, width: int, digits: int) -> str:
    return "-".rjust(width) if value is None else f"{value:{width}.{digits}f}"


def _told(found: Difference) -> list[str]:
    lines = [f"{found.first} -> {found.second}"]
    lines += [f"{'features' if i == 0 else '':<12} {name} {kind}" for i, (name, kind) in enumerate(found.features.items())]
    for part in ("schema", "parameters", "metrics", "dataset", "environment", "other"):
        for i, (name, pair) in enumerate(getattr(found, part).items()):
            change = f"  ({pair[2]:+.6g})" if len(pair) == 3 and pair[2] is not None else ""
            lines.append(f"{part if i == 0 else '':<12} {name}: {pair[0]} -> {pair[1]}{change}")
    return lines
