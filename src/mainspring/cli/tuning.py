"""The ``tune`` verb: a search over the settings of a system's model, on the training set of a workspace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.errors import TrainingError

if TYPE_CHECKING:
    from mainspring.cli.progress import Bars
    from mainspring.spec import System
    from mainspring.storage.workspace import Workspace
    from mainspring.training.dataset import Dataset
    from mainspring.training.tuning.fits import Fits
    from mainspring.training.tuning.search import Search, Trial
    from mainspring.training.tuning.tune import Found, Progress


@click.command()
@click.argument("system")
@click.option("--trials", type=click.IntRange(1), default=50, show_default=True, help="How many settings to try.")
@click.option("--sampler", type=click.Choice(["grid", "random", "tpe", "gp"]), default="tpe", show_default=True)
@click.option(
    "--pruner",
    type=click.Choice(["extrapolation", "asha", "hyperband", "none"]),
    default="extrapolation",
    show_default=True,
    help="How trials of models that learn in rounds are stopped early.",
)
@click.option("--set", "said", multiple=True, help="What to tune instead: name=low..high[:log], name=one|other, or name=value. Repeat it.")
@click.option("--metric", default=None, help="The measure to tune for, instead of the one that the requirements or the task name.")
@click.option("--timeout", default=None, help="No trial begins after this long, for example 10m.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Trials at a time, each on one thread.")
@click.option("--over", default=None, help="Run trials on Ray: 'ray' on this machine, 'ray:HOST:PORT' on a cluster.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system under mainspring-work/."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tune(system: str, workspace: Path | None, as_json: bool, **chosen: Any) -> None:
    """Search for better settings of a system's model, and print the line of declaration to paste.

    Settings are judged on the newest rows before the holdout by which the gate judges, which no trial sees. Every trial is a run. The
    same command goes on where it was killed.

    \b
    Example:
      mainspring tune eta --trials 30 --workers 2
      mainspring tune eta --set learning_rate=0.02..0.2:log --set leaves=15..127 --set trees=400
    """
    from mainspring.cli import systems
    from mainspring.cli.progress import Bars
    from mainspring.storage.workspace import Workspace

    declared = systems.find_system(system).system
    space = Workspace(workspace or systems.newest_workspace(system))
    with Bars(quiet=as_json) as bars:
        told = _search(declared, space, bars, **chosen)
    if as_json:
        click.echo(json.dumps(told))
        return
    rows, changed = told["rows"], "  ".join(f"{name}={old!r} -> {new!r}" for name, (old, new) in told["changed"].items())
    click.echo(f"{told['metric']} on {rows['validation']:,} rows that chose the settings, fitted to {rows['training']:,} before them:")
    click.echo(f"  declared  {told['declared']['value']:.6g}")
    click.echo(f"  found     {told['found']['value']:.6g}  {changed}")
    click.echo(f"{told['trials']} trials ({told['stopped']} stopped early, {told['failed']} failed) in {told['seconds']:.0f} s.")
    click.echo(f"To paste:\n  model={told['found']['line']}")
    click.echo(f"Wrote {told['folder']} and {told['trials'] + 1} runs. Next: {_next(told, system)}")


def _search(
    system: System, space: Workspace, bars: Bars, *, trials: int, sampler: Any, pruner: Any, said: Sequence[str], metric: str | None,
    timeout: str | None, workers: int, over: str | None, seed: int,
) -> dict[str, Any]:  # fmt: skip
    from mainspring.clock import parse_duration
    from mainspring.training.tracking.tracker import Tracker
    from mainspring.training.tuning.fits import fits_of
    from mainspring.training.tuning.search import Search
    from mainspring.training.tuning.spaces import tunable
    from mainspring.training.tuning.tune import tune

    searched = tunable(system.model, said)
    bars.step("build training set", 0, 1)
    dataset = _dataset(system, space)
    bars.step("build training set", 1, 1)
    fits = fits_of(system, searched, dataset, metric)
    seconds = None if timeout is None else parse_duration(timeout) / 1e6
    stops = None if pruner == "none" else pruner
    search = Search(searched.space, sampler, stops, trials, seconds, seed, fits.goal, searched.steps)
    folder = space.searches / _address(search, fits, dataset)
    with closing(Tracker(space.runs)) as tracker:
        told = _watching(bars, search, fits.metric)
        found = tune(search, fits, folder, workers=workers, over=over, tracker=tracker, name=f"{system.name} tuning", progress=told)
    bars.step("tune", search.trials, search.trials, f"best {fits.metric} {found.best.value:.6g}")
    return _told(system, fits, found, folder)


def _dataset(system: System, space: Workspace) -> Dataset:
    """The newest training set of the workspace, with the present features.

    Raises:
        TrainingError: nothing was trained there.
    """
    from mainspring.cli.systems import open_registry
    from mainspring.storage.tables import Tables
    from mainspring.training.dataset import DatasetBuilder

    with open_registry(space.path) as registry:
        sets = registry.versions("dataset", system.name)
    if not sets:
        raise TrainingError(f"{space.path} has no training set of '{system.name}' yet. Train a first version: mainspring run {system.name}")
    newest = sets[-1].manifest
    return DatasetBuilder(system, Tables(space.tables)).build(newest["from"], newest["until"])


def _address(search: Search, fits: Fits, dataset: Dataset) -> str:
    """What names a search: all that its trials follow from but their number."""
    from mainspring.training.sets import address_of

    declared = [repr(one) for one in (fits.tunable, search.sampler, search.pruner, search.seed, fits.metric)]
    return address_of([dataset.manifest["address"], *declared])


def _watching(bars: Bars, search: Search, metric: str) -> Progress:
    best = max if search.goal == "maximize" else min

    def progress(ended: Sequence[Trial]) -> None:
        values = [trial.value for trial in ended if trial.state == "finished" and trial.value is not None]
        bars.step("tune", min(len(ended), search.trials - 1), search.trials, f"best {metric} {best(values):.6g}" if values else "")

    return progress


def _told(system: System, fits: Fits, found: Found, folder: Path) -> dict[str, Any]:
    """What came of a search; both lines are fitted and judged once more as they are printed."""
    from mainspring.training.tuning.spaces import line, rounded

    better = fits.tunable.with_settings(rounded(found.best.settings))
    lines = {"declared": system.model, "found": better}
    names = [field.name for field in fields(better) if getattr(better, field.name) != getattr(system.model, field.name)]
    return {
        "system": system.name,
        "metric": fits.metric,
        "goal": fits.goal,
        "rows": {"training": len(fits.examples), "validation": len(fits.validation)},
        **{name: {"value": fits.judge(model), "line": line(model)} for name, model in lines.items()},
        "changed": {name: (getattr(system.model, name), getattr(better, name)) for name in names},
        "best": asdict(found.best),
        "trials": len(found.trials),
        "stopped": sum(trial.state == "stopped" for trial in found.trials),
        "failed": sum(trial.state == "failed" for trial in found.trials),
        "steps": found.steps,
        "seconds": found.seconds,
        "folder": str(folder),
    }


def _next(told: dict[str, Any], system: str) -> str:
    found, declared = told["found"]["value"], told["declared"]["value"]
    if found > declared if told["goal"] == "maximize" else found < declared:
        return f"paste it into the declaration, then mainspring run {system}: the gate judges it on rows that no trial saw."
    return f"keep the declaration, nothing better was found; or search on: mainspring tune {system} --trials {2 * told['trials']}"
