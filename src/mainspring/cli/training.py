"""The ``train`` verb: one version, on what a workspace holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.models import json_option, workspace_option
from mainspring.spec.model import RETRAINS

if TYPE_CHECKING:
    from mainspring.evaluation.gate import GateResult
    from mainspring.model_registry import Registry, Version
    from mainspring.spec import System


@click.command()
@click.argument("system")
@click.option("--retrain", type=click.Choice(RETRAINS), default=None, help="Fit anew, go on from the champion, or both; else as declared.")
@click.option("--at", default=None, help="Train on what was known at this instant (ISO 8601, UTC); the newest fact without it.")
@click.option("--shadow", is_flag=True, help="Where it passes the gate, let it score every request unseen, beside the champion.")
@click.option("--note", default="by hand", show_default=True, help="What to record beside it.")
@click.option("--threads", default=2, show_default=True, help="Threads for training and offline features.")
@workspace_option
@json_option
def train(
    system: str, retrain: str | None, at: str | None, shadow: bool, note: str, threads: int, workspace: Path | None, as_json: bool
) -> None:
    """Train a version of a system's model on the facts of a workspace, judge it, register it; exit code 9 where the gate refuses it.

    \b
    Example:
      mainspring train eta
      mainspring train eta --retrain both --shadow
    """
    from mainspring.cli.progress import Bars
    from mainspring.cli.systems import find_system, newest_workspace, open_registry
    from mainspring.clock import parse_instant
    from mainspring.loop.evidence import commit
    from mainspring.loop.retrain import Retrainer
    from mainspring.storage.stores import open_log
    from mainspring.storage.tables import Tables
    from mainspring.storage.workspace import Workspace
    from mainspring.training.dataset import DatasetBuilder
    from mainspring.training.tracking.tracker import Tracker

    folder = workspace or newest_workspace(system)
    declared, space = find_system(system).system, Workspace(folder)
    if retrain is not None:
        declared = dataclasses.replace(declared, model=dataclasses.replace(declared.model, retrain=retrain))
    tables = Tables(space.tables)
    with open_registry(folder) as registry, Bars(quiet=as_json) as bars:
        tables.catch_up(open_log(space.events_url))
        builder = DatasetBuilder(declared, tables)
        instant = builder.newest() + 1 if at is None else parse_instant(at)
        retrainer = Retrainer(declared, registry, builder, commit(), threads, Tracker(space.runs))
        dataset = retrainer.dataset(instant, lambda done, total: bars.step("build training set", done, total))
        bars.step("train", 0, 1, f"{len(dataset):,} rows")
        version, gate = retrainer.train(dataset, instant, note=note)
        bars.step("train", 1, 1)
        if shadow and gate.passed:
            registry.decide(system, "shadow", version.id, at=instant, by="hand", reason=note)
        told = _told(declared, registry, version, gate)
    click.echo(json.dumps(told) if as_json else _line(told, folder))
    if not gate.passed:
        raise SystemExit(9)


def _told(system: System, registry: Registry, version: Version, gate: GateResult) -> dict[str, Any]:
    ways = [one for one in registry.decisions(system.name) if one.action == "retrained" and one.version == version.id]
    return {
        "version": version.id,
        "passed": gate.passed,
        "reason": gate.reason,
        "rows": version.manifest["rows"],
        "seconds": version.manifest["seconds"],
        "start": version.manifest["start"],
        "retrained": ways[-1].reason if ways else "full",
        "stage": registry.deployment(system.name).stage,
    }


def _line(told: dict[str, Any], folder: Path) -> str:
    start = f", going on from {told['start']}" if told["start"] else ""
    lines = [
        f"{told['version']} was fitted to {told['rows']:,} rows in {told['seconds']:.1f} s{start}; it is in the registry of {folder}/.",
        f"The gate {'passed' if told['passed'] else 'REFUSED'} it: {told['reason']}",
    ]
    lines += [] if told["retrained"] == "full" else [f"Taken was {told['retrained']}"]
    number = told["version"].rsplit(":", 1)[1]
    return "\n".join([*lines, f"Next: mainspring models show {told['version'].split(':')[1]} {number}"])
