"""The ``runs`` verb: records of trainings, tuning trials and compressions."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mainspring.training.tracking.runs import Run
    from mainspring.training.tracking.tracker import Tracker

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
workspace_option = click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system under mainspring-work/."
)


@click.group()
def runs() -> None:
    """Trainings, tuning trials and compressions: what went in, what came out, on what; compared, and done again to the bit.

    \b
    Example:
      mainspring runs list eta
      mainspring runs show eta 3f2a
      mainspring runs compare eta 3f2a 9c01
      mainspring runs reproduce eta 3f2a
      mainspring runs export eta --mlflow http://127.0.0.1:5000
    """


@runs.command("list")
@click.argument("system")
@click.option("--parent", default=None, help="Only the trials of this run.")
@workspace_option
@json_option
def list_runs(system: str, parent: str | None, workspace: Path | None, as_json: bool) -> None:
    """List the runs of a workspace, oldest first.

    \b
    Example:
      mainspring runs list eta
    """
    with _tracker(system, workspace) as tracker:
        found = tracker.runs(parent=None if parent is None else tracker.run(parent).id)
    if as_json:
        click.echo(json.dumps([run.to_dict() for run in found]))
        return
    for run in found:
        figures = "  ".join(f"{name} {value:.5g}" for name, value in list(run.metrics.items())[:3])
        click.echo(f"{run.id}  {_at(run)}  {run.name:<12} {run.status:<8} {_seconds(run):>8}  {figures}  {run.notes.get('version', '')}")


@runs.command()
@click.argument("system")
@click.argument("run")
@workspace_option
@json_option
def show(system: str, run: str, workspace: Path | None, as_json: bool) -> None:
    """Show everything about one run; the beginning of its id is enough.

    \b
    Example:
      mainspring runs show eta 3f2a
    """
    with _tracker(system, workspace) as tracker:
        found = tracker.run(run)
        curves = {name: (len(curve.step), float(curve.value[-1])) for name, curve in tracker.curves(found).items()}
        machine = tracker.environment(found)
    if as_json:
        click.echo(json.dumps({**found.to_dict(), "environment": machine, "steps": curves}))
        return
    for name, value in found.to_dict().items():
        if isinstance(value, dict):
            click.echo(name)
            for key, one in value.items():
                click.echo(f"  {key:<28} {one if isinstance(one, str | int | float) else json.dumps(one)}")
        else:
            click.echo(f"{name:<16} {value}")
    for name, (count, last) in curves.items():
        click.echo(f"{name:<30} {count:,} steps, last {last:.6g}")
    click.echo(f"ran on {machine.get('machine')}, Python {machine.get('python')}, {len(machine.get('packages', ()))} packages")


@runs.command()
@click.argument("system")
@click.argument("run", nargs=-1)
@click.option("--html", "page", type=click.Path(path_type=Path), default=None, help="Write a page with curves to this file instead.")
@workspace_option
@json_option
def compare(system: str, run: tuple[str, ...], page: Path | None, workspace: Path | None, as_json: bool) -> None:
    """Compare runs, all when none is named: only what tells them apart is shown.

    \b
    Example:
      mainspring runs compare eta 3f2a 9c01
      mainspring runs compare eta --html runs.html
    """
    from mainspring.training.tracking.runs import differences

    with _tracker(system, workspace) as tracker:
        found = [tracker.run(id) for id in run] or tracker.runs()
        if page is not None:
            from mainspring.training.tracking.html import html

            page.write_text(html(tracker, found))
            click.echo(f"Wrote {page}. Next: mainspring runs reproduce {system} RUN")
            return
        apart = differences({one.id: {**one.to_dict(), "id": "", "environment": tracker.environment(one)} for one in found})
    if as_json:
        click.echo(json.dumps({"runs": [one.id for one in found], "differences": apart}))
        return
    _print_table(["", *(one.id for one in found)], [[name, *map(_short, values)] for name, values in apart.items()])


@runs.command()
@click.argument("system")
@click.argument("run")
@workspace_option
@json_option
def reproduce(system: str, run: str, workspace: Path | None, as_json: bool) -> None:
    """Train again from a run's record and compare bit by bit; exit code 9 when an artifact differs.

    \b
    Example:
      mainspring runs reproduce eta 3f2a
    """
    from dataclasses import asdict

    from mainspring.cli.systems import newest_workspace
    from mainspring.storage.tables import Tables
    from mainspring.storage.workspace import Workspace
    from mainspring.training.reproduce import reproduce as again

    folder = workspace or newest_workspace(system)
    with _tracker(system, folder) as tracker:
        done = again(tracker, tracker.run(run), Tables(Workspace(folder).tables))
    if as_json:
        click.echo(json.dumps({**asdict(done), "same": done.same}))
    else:
        for name, (recorded, now) in done.artifacts.items():
            click.echo(f"{'same' if recorded == now else 'DIFFERS':<8} {name:<16} {recorded[:12]} {now[:12]}")
        _print_table(["", "then", "now"], [[name, *map(_short, values)] for name, values in done.differences.items()])
        click.echo(f"{'Reproduced to the bit' if done.same else 'Not reproduced'} in {done.seconds:.1f} s.")
    if not done.same:
        sys.exit(9)


@runs.command()
@click.argument("system")
@click.option("--mlflow", "url", required=True, help="Address of the MLflow server.")
@workspace_option
@json_option
def export(system: str, url: str, workspace: Path | None, as_json: bool) -> None:
    """Copy ended runs to an MLflow server, those that it does not have yet.

    \b
    Example:
      mainspring runs export eta --mlflow http://127.0.0.1:5000
    """
    from mainspring.training.adapters.mlflow import export_runs

    with _tracker(system, workspace) as tracker:
        copied = export_runs(tracker, tracker.runs(), url)
    click.echo(json.dumps({"exported": copied}) if as_json else f"Exported {len(copied)} runs to {url}.")


@runs.command("import")
@click.argument("system")
@click.option("--mlflow", "url", required=True, help="Address of the MLflow server.")
@click.option("--experiment", default=None, help="Only the runs of this experiment.")
@workspace_option
@json_option
def import_(system: str, url: str, experiment: str | None, workspace: Path | None, as_json: bool) -> None:
    """Copy ended runs from an MLflow server, those that are not here yet.

    \b
    Example:
      mainspring runs import eta --mlflow http://127.0.0.1:5000 --experiment eta
    """
    from mainspring.training.adapters.mlflow import import_runs

    with _tracker(system, workspace) as tracker:
        copied = import_runs(tracker, url, experiment)
    click.echo(json.dumps({"imported": copied}) if as_json else f"Imported {len(copied)} runs. Next: mainspring runs list {system}")


@contextmanager
def _tracker(system: str, workspace: Path | None) -> Iterator[Tracker]:
    from mainspring.cli.systems import newest_workspace
    from mainspring.errors import StorageError
    from mainspring.storage.workspace import Workspace
    from mainspring.training.tracking.tracker import Tracker

    path = Workspace(workspace or newest_workspace(system)).runs
    if not path.is_dir():
        raise StorageError(f"{path} holds no runs. Train something: mainspring run {system}")
    tracker = Tracker(path)
    try:
        yield tracker
    finally:
        tracker.close()


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    if not rows:
        click.echo("No difference.")
        return
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 28 else f"{text[:25]}..."


def _at(run: Run) -> str:
    from mainspring.clock import format_instant

    return format_instant(run.started_at)[:19]


def _seconds(run: Run) -> str:
    return "" if run.seconds is None else f"{run.seconds:.1f} s"
