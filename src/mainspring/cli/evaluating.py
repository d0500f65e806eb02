"""The ``evaluate`` verb: a registered version measured again."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import click


@click.command()
@click.argument("system")
@click.argument("version", required=False)
@click.option("--against", default=None, help="Another version to compare with on the same rows.")
@click.option("--newest", is_flag=True, help="On the rows that have come since the training, instead of on its holdout.")
@click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system under mainspring-work/."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(system: str, version: str | None, against: str | None, newest: bool, workspace: Path | None, as_json: bool) -> None:
    """Evaluate a version (the champion, if none is named) on rows that it was not fitted on.

    Exit code 1 when a declared quality is missed.

    \b
    Example:
      mainspring evaluate eta
      mainspring evaluate eta 3 --against champion
      mainspring evaluate eta --newest --json
    """
    from rich.console import Console

    from mainspring.cli.progress import Bars
    from mainspring.cli.systems import newest_workspace, open_registry
    from mainspring.design.evaluation_text import print_evaluation
    from mainspring.loop.evaluate import evaluate_version
    from mainspring.serving.versions import load_system
    from mainspring.storage.stores import open_log
    from mainspring.storage.tables import Tables
    from mainspring.storage.workspace import Workspace

    space = Workspace(workspace or newest_workspace(system))
    with open_registry(space.path) as registry, Bars(quiet=as_json) as bars:
        bars.step("evaluate", 0, 1)
        chosen = registry.resolve(system, version or "champion")
        other = None if against is None else registry.resolve(system, against)
        tables = Tables(space.tables)
        with closing(open_log(space.events_url)) as log:
            tables.catch_up(log)
        found = evaluate_version(load_system(registry, system), registry, tables, chosen, against=other, newest=newest)
        bars.step("evaluate", 1, 1)
    if as_json:
        click.echo(found.to_json().decode())
    else:
        print_evaluation(chosen.id, found, Console(width=None if sys.stdout.isatty() else 120))
        click.echo(f"\nNext: mainspring models card {system} {chosen.number} --html card.html")
    if any(one.verdict == "missed" for one in found.promises):
        sys.exit(1)
