"""The verb ``models compress``: a version made smaller, measured, and let through only within a declared loss."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mainspring.cli.models import json_option, now, workspace_option


@click.command()
@click.argument("system")
@click.argument("which")
@click.option("--step", "texts", multiple=True, required=True, help="What to do, as NAME:setting=value,...; several are done in turn.")
@click.option("--metric", required=True, help="The measure that may become worse, such as mae or average_precision.")
@click.option("--most-lost", type=float, required=True, help="By how much at most, in the measure's own unit.")
@click.option("--alert-rate", type=float, default=None, help="The share of rows that are alerts, for recall, precision, f1 and mcc.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="With 1 the same call gives the same bits.")
@workspace_option
@json_option
def compress(
    system: str, which: str, texts: tuple[str, ...], metric: str, most_lost: float, alert_rate: float | None, threads: int,
    workspace: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Make the version WHICH smaller, measure both on the rows held back at its training, and register the outcome.

    The steps: quantize (how=dynamic or static), prune (share, structured, rounds, epochs), distil (into, temperature, truth, beside, and
    the settings of the model that it goes into). The loss must lie below --most-lost with its whole interval; else the new version is
    recorded as refused, and the exit code is 9.

    \b
    Example:
      mainspring models compress eta champion --step prune:share=0.5 --metric mae --most-lost 0.1
      mainspring models compress eta 3 --step distil:into=LightGBM,trees=60 --metric mae --most-lost 0.2
      mainspring models compress eta 4 --step prune:structured=true --step quantize:how=static --metric mae --most-lost 0.1
    """
    from mainspring.cli.progress import Bars
    from mainspring.cli.systems import newest_workspace, open_registry
    from mainspring.loop.evidence import commit
    from mainspring.storage.tables import Tables
    from mainspring.storage.workspace import Workspace
    from mainspring.training.compression import Bound, parse
    from mainspring.training.compression import compress as make
    from mainspring.training.tracking.tracker import Tracker

    steps, bound = [parse(text) for text in texts], Bound(metric, most_lost, alert_rate)
    folder = workspace or newest_workspace(system)
    with open_registry(folder) as registry, Bars(quiet=as_json) as bars:
        version, space = registry.resolve(system, which), Workspace(folder)
        recorded: dict[str, Any] = {"at": now(), "code": commit(), "tracker": Tracker(space.runs)}
        done = make(registry, Tables(space.tables), version, steps, bound, threads=threads, progress=bars.step, **recorded)
    if as_json:
        told = {"version": done.version.id, "made_from": version.id, "passed": done.passed, "reason": done.reason}
        click.echo(json.dumps({**told, "steps": [str(step) for step in steps], "table": done.table.to_dict(), "bound": asdict(bound)}))
    else:
        click.echo("\n".join(done.table.lines()))
        next_ = f"Next: mainspring rollout {system} --shadow {done.version.number}"
        outcome = next_ if done.passed else "It is refused."
        click.echo(f"Registered {done.version.id}, made from {version.id}. {outcome}")
    if not done.passed:
        raise SystemExit(9)
