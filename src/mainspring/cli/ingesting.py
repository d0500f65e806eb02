"""The ``ingest`` verb, and ``quarantine``: what became of rows that broke their contract."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mainspring.ingestion import Ingestor, Quarantine, Quarantined
    from mainspring.storage.log import Log
    from mainspring.storage.workspace import Workspace

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
workspace_option = click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system under mainspring-work/."
)
source_option = click.option("--source", default=None, help="Only rows of this source.")
reason_option = click.option("--reason", default="", help="Only rows whose reason holds this text.")


@click.command()
@click.argument("system")
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path))
@workspace_option
@json_option
def ingest(system: str, source: str, file: Path, workspace: Path | None, as_json: bool) -> None:
    """Take a file of facts into the event log: Parquet, or JSON lines.

    Rows that break the source's contract go to quarantine with the reason. Exit code 9 when there were any, or when the file
    broke what is expected of a batch.

    \b
    Example:
      mainspring ingest eta arrivals arrivals.parquet
      mainspring ingest eta arrivals arrivals.jsonl --workspace mainspring-work/eta
    """
    from mainspring.cli.progress import Bars
    from mainspring.clock import SystemClock
    from mainspring.ingestion.files import ingest_file

    space, ingestor, _, _ = _opened(system, workspace)
    with Bars(quiet=as_json) as bars:
        done = ingest_file(ingestor, source, file, SystemClock().now(), lambda part, whole: bars.step("ingest", part, max(whole, 1)))
    if as_json:
        click.echo(json.dumps(asdict(done)))
    else:
        click.echo(f"{done.accepted:,} facts of '{source}' are in {space.events}, {sum(done.rejected.values()):,} in quarantine.")
        _print_counts(done.rejected)
        for violation in done.violations:
            click.echo(f"expected otherwise: {violation.message}; the batch was {'refused' if violation.refused else 'kept'}")
        click.echo(f"Next: mainspring {'quarantine list' if done.rejected else 'serve'} {system} --workspace {space.path}")
    if done.rejected or done.violations:
        sys.exit(9)


@click.group()
def quarantine() -> None:
    """Rows that broke their source's contract: count them, read them, let those in that hold to it now.

    \b
    Example:
      mainspring quarantine list eta
      mainspring quarantine show eta --source arrivals --reason minutes
      mainspring quarantine retry eta
    """


@quarantine.command("list")
@click.argument("system")
@workspace_option
@json_option
def list_rows(system: str, workspace: Path | None, as_json: bool) -> None:
    """How many rows of each source are there for each reason.

    \b
    Example:
      mainspring quarantine list eta
    """
    space, _, _, held = _opened(system, workspace)
    counts = [{"source": name, "reason": why, "rows": rows} for name in held.sources for why, rows in held.counts(name).most_common()]
    counts += [{"source": name, "reason": "damaged lines", "rows": number} for name in held.sources if (number := held.damaged(name))]
    if as_json:
        click.echo(json.dumps(counts))
        return
    for one in counts:
        click.echo(f"{one['rows']:>9,}  {one['source']:<24} {one['reason']}")
    show = f"Next: mainspring quarantine show {system} --workspace {space.path}"
    click.echo(show if counts else f"Nothing is in quarantine in {space.quarantine}.")


@quarantine.command("show")
@click.argument("system")
@source_option
@reason_option
@click.option("--limit", type=click.IntRange(1), default=None, help="At most this many rows.")
@workspace_option
@json_option
def show_rows(system: str, source: str | None, reason: str, limit: int | None, workspace: Path | None, as_json: bool) -> None:
    """The rows with their values. With --json one object a line, which may be edited and given back to `retry --edited`.

    \b
    Example:
      mainspring quarantine show eta --source arrivals --limit 20
      mainspring quarantine show eta --reason minutes --json > rows.jsonl
    """
    space, _, _, held = _opened(system, workspace)
    for number, (name, row) in enumerate(_rows(held, source, reason)):
        if number == limit:
            break
        if as_json:
            click.echo(json.dumps({"source": name, **asdict(row)}))
        else:
            click.echo(f"{name} {row.line}: {row.reason}  {json.dumps(row.values)}")
    if not as_json:
        click.echo(f"Next: mend the declaration or the rows, then mainspring quarantine retry {system} --workspace {space.path}")


@quarantine.command("retry")
@click.argument("system")
@source_option
@reason_option
@click.option(
    "--edited", type=click.Path(path_type=Path), default=None, help="Rows with edited values, as `show --json` prints them; only these."
)
@workspace_option
@json_option
def retry_rows(system: str, source: str | None, reason: str, edited: Path | None, workspace: Path | None, as_json: bool) -> None:
    """Check rows against the declaration as it is now; those that hold to it go into the event log, once.

    Exit code 9 when some stay.

    \b
    Example:
      mainspring quarantine retry eta
      mainspring quarantine retry eta --source arrivals --reason "batch refused"
      mainspring quarantine retry eta --edited rows.jsonl
    """
    from mainspring.clock import SystemClock
    from mainspring.ingestion.retry import retry

    space, ingestor, log, held = _opened(system, workspace)
    mended = None if edited is None else _edited(edited)
    results: dict[str, Any] = {}
    for name in [source] if source is not None else [one for one in held.sources if one in ingestor.sources]:

        def wanted(row: Quarantined, name: str = name) -> bool:
            return reason in row.reason and (mended is None or (name, row.line) in mended)

        def mend(row: Quarantined, name: str = name) -> Mapping[str, Any]:
            return row.values if mended is None else mended[name, row.line]

        results[name] = asdict(retry(ingestor, log, held, name, SystemClock().now(), mend, wanted))
    if as_json:
        click.echo(json.dumps(results))
    else:
        for name, result in results.items():
            click.echo(
                f"{result['accepted']:,} facts of '{name}' are in {space.events}, {sum(result['rejected'].values()):,} stay in quarantine."
            )
            _print_counts(result["rejected"])
        stay = any(result["rejected"] for result in results.values())
        click.echo(f"Next: mainspring {'quarantine show' if stay else 'serve'} {system} --workspace {space.path}")
    if any(result["rejected"] for result in results.values()):
        sys.exit(9)


def _opened(system: str, workspace: Path | None) -> tuple[Workspace, Ingestor, Log, Quarantine]:
    from mainspring.cli.systems import find_system, newest_workspace
    from mainspring.ingestion import Ingestor, Quarantine
    from mainspring.storage.stores import open_log
    from mainspring.storage.workspace import Workspace

    declared = find_system(system).system
    space = Workspace(workspace or newest_workspace(system))
    log, held = open_log(space.events_url), Quarantine(space.quarantine)
    return space, Ingestor(log, {one.name: one for one in (declared.request, *declared.sources)}, held), log, held


def _rows(held: Quarantine, source: str | None, reason: str) -> Iterator[tuple[str, Quarantined]]:
    for name in held.sources if source is None else [source]:
        for row in held.read(name):
            if reason in row.reason:
                yield name, row


def _edited(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    from mainspring.errors import DataError
    from mainspring.ingestion.files import read_lines

    try:
        rows = list(read_lines(path))
    except OSError as error:
        raise DataError(f"Edited rows, {path}: cannot be read ({error}).") from error
    wrong = [number for number, row in enumerate(rows, 1) if not isinstance(row, dict) or not isinstance(row.get("values"), dict)]
    wrong += [number for number, row in enumerate(rows, 1) if isinstance(row, dict) and not {"source", "line"} <= row.keys()]
    if wrong:
        raise DataError(f"Edited rows, {path}, row {wrong[0]}: is no row as `mainspring quarantine show --json` prints them.")
    return {(row["source"], row["line"]): row["values"] for row in rows}


def _print_counts(counts: Mapping[str, int]) -> None:
    for reason, rows in sorted(counts.items(), key=lambda one: -one[1]):
        click.echo(f"{rows:>9,}  {reason}")
