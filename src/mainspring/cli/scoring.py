"""The ``score`` verb: answers to a whole file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mainspring.cli.models import json_option, workspace_option


@click.command()
@click.argument("system")
@click.option("--in", "source", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="Questions: .parquet, .arrow, .csv, .jsonl.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Where the answers go: .parquet.")
@click.option("--version", "which", default=None, help="A number, alias or id of a version, which answers alone; else what is live.")
@click.option("--features", "where", type=click.Choice(["offline", "online"]), default="offline", show_default=True,
              help="From the tables, as known at each row's event time, or from the online store as it is now.")  # fmt: skip
@click.option("--rows", type=click.IntRange(1), default=10_000, show_default=True, help="Rows in memory at a time.")
@click.option("--over", default="", help="ray, or ray:HOST:PORT of a cluster; in this process without it.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Workers of Ray.")
@workspace_option
@json_option
def score(
    system: str, source: Path, out: Path, which: str | None, where: str, rows: int, over: str, workers: int, workspace: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Answer every row of a file, as the server would at each row's event time.

    Rows that the contract refuses, or that nothing can answer, go to a file beside the answers, with the reason. Killed, it goes on
    with the same command.

    \b
    Example:
      mainspring score eta --in trips.parquet --out scored.parquet
      mainspring score eta --in trips.csv --out scored.parquet --version 3 --json
    """
    from mainspring.cli.progress import Bars
    from mainspring.cli.systems import newest_workspace
    from mainspring.scoring.job import as_json as told
    from mainspring.scoring.job import score_file
    from mainspring.storage.workspace import Workspace

    space = Workspace(workspace or newest_workspace(system))
    with Bars(quiet=as_json) as bars:
        done = score_file(
            space,
            source,
            out,
            which=which,
            where="online" if where == "online" else "offline",
            rows=rows,
            over=over,
            workers=workers,
            progress=lambda now, total: bars.step("score", now, total),
        )
    if as_json:
        click.echo(json.dumps(told(done)))
        return
    click.echo(f"Wrote {done.answered:,} answers of {', '.join(done.versions)} to {done.out}")
    if done.rejects is not None:
        click.echo(f"{done.rejected:,} rows were rejected: see {done.rejects}")
