"""The ``mainspring`` command and its verbs. What a verb needs is imported when it runs, so that ``--help`` is instant."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mainspring import __version__
from mainspring.cli.benching import bench
from mainspring.cli.compressing import compress
from mainspring.cli.deploying import deploy
from mainspring.cli.evaluating import evaluate
from mainspring.cli.explaining import counterfactual, explain
from mainspring.cli.exporting import export
from mainspring.cli.features import features
from mainspring.cli.ingesting import ingest, quarantine
from mainspring.cli.keys import keys
from mainspring.cli.models import models
from mainspring.cli.releasing import instant, rollout
from mainspring.cli.runs import runs
from mainspring.cli.scoring import score
from mainspring.cli.streaming import dead_letters, stream
from mainspring.cli.training import train
from mainspring.cli.tuning import tune
from mainspring.errors import MainspringError


class _Verbs(click.Group):
    """Verbs in the order of the loop; a known error is one line on stderr and its own exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MainspringError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            sys.exit(0)


workspace_option = click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system under mainspring-work/."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mainspring")
def main() -> None:
    """Declare a production machine-learning system once; run, measure and prove the whole loop.

    \b
    Start here:
      mainspring run eta          the whole loop on real flights, with a report at the end
      mainspring draw eta         the system's architecture diagram
    """


@main.command()
@click.argument("system")
@click.option("--source", default=None, help="Which recording to run on (eta: flights, taxi, taxi-router).")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="Folder of the recording's data set, where it needs one.")
@click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder to run in; goes on where an interrupted run stopped."
)
@click.option("--since", default=None, help="Leave out history before this date (ISO 8601, UTC).")
@click.option("--until", default=None, help="Replay up to this date (ISO 8601, UTC) instead of the recording's own end.")
@click.option(
    "--log", default=None, help="Address of an empty event log: redis://HOST:PORT/DB#STREAM, kafka://HOST:PORT/TOPIC; a folder without it."
)
@click.option("--online", default=None, help="Address of the online store: redis://HOST:PORT/DATABASE; embedded without it.")
@click.option("--keep-serving", is_flag=True, help="Leave the service up at the end, on --port.")
@click.option("--port", default=8000, show_default=True, help="Port for --keep-serving.")
@click.option("--no-drill", is_flag=True, help="Do not train a worse model on purpose to prove that it is stopped.")
@click.option("--threads", default=2, show_default=True, help="Threads for training and offline features.")
@json_option
def run(
    system: str,
    source: str | None,
    data: Path | None,
    workspace: Path | None,
    since: str | None,
    until: str | None,
    log: str | None,
    online: str | None,
    keep_serving: bool,
    port: int,
    no_drill: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Run the whole loop: ingest, train, gate, serve, replay, watch, retrain, roll out; report.

    \b
    Example:
      mainspring run eta
      mainspring run eta --since 2013-09-12 --until 2013-11-06   # a small one
      mainspring run eta --source taxi --data $MAINSPRING_DATA/nyc-taxi-yellow-sample
    """
    from mainspring.cli.running import run_system

    run_system(
        system,
        source,
        data,
        workspace,
        since=None if since is None else instant(since),
        until=None if until is None else instant(until),
        log=log,
        online=online,
        keep_serving=keep_serving,
        port=port,
        drill=not no_drill,
        threads=threads,
        as_json=as_json,
    )


main.add_command(ingest)
main.add_command(quarantine)


@main.command()
@click.argument("system")
@click.option("--format", "form", type=click.Choice(["svg", "mermaid", "text", "json"]), default="svg", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=None, help="File to write; standard output for all but svg.")
def draw(system: str, form: str, output: Path | None) -> None:
    """Draw a system's architecture, or print its declaration.

    \b
    Example:
      mainspring draw eta --output eta.svg
      mainspring draw eta --format mermaid
    """
    from mainspring.cli.systems import find_system
    from mainspring.design.draw import mermaid, svg
    from mainspring.spec import System

    declared = find_system(system).system
    renderings: dict[str, Callable[[System], str]] = {"svg": svg, "mermaid": mermaid, "text": str, "json": System.to_json}
    text = renderings[form](declared)
    target = output or (Path(f"{system}.svg") if form == "svg" else None)
    if target is None:
        click.echo(text)
        return
    target.write_text(text)
    click.echo(f"Wrote {target}. Next: mainspring run {system}")


@main.command()
@click.argument("systems", nargs=-1, required=True, metavar="SYSTEM...")
@click.option(
    "--workspace",
    "workspaces",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder of a run, once for each system in their order; the newest of each under mainspring-work/.",
)
@click.option("--port", default=8000, show_default=True, help="Port on 127.0.0.1; 0 for a free one.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that answer, on one port.")
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), default=None, help="Also the Open Inference Protocol over gRPC; 0 for a free port."
)
@click.option("--no-stream", is_flag=True, help="Leave the online store to `mainspring features stream`.")
@click.option(
    "--settings", type=click.Path(path_type=Path), default=None, help="TOML file of who may come in, limits, logs: docs/gateway.md."
)
def serve(
    systems: tuple[str, ...],
    workspaces: tuple[Path, ...],
    port: int,
    workers: int,
    grpc_port: int | None,
    no_stream: bool,
    settings: Path | None,
) -> None:
    """Serve the live versions of one system or several over HTTP, and gRPC if asked to, each from the workspace of a run.

    A worker that dies is started again. SIGTERM ends the server once it has answered what has begun; with several workers SIGHUP
    replaces them one by one without a failed request.

    \b
    Example:
      mainspring serve eta --port 8000
      mainspring serve eta --workers 4 --settings gateway.toml
      mainspring serve eta fraud
    """
    from mainspring.cli.running import serve_workspaces
    from mainspring.cli.systems import newest_workspace

    if settings is not None:
        from mainspring.gateway.settings import read_settings

        read_settings(settings)
    if workspaces and len(workspaces) != len(systems):
        raise click.UsageError(
            f"{len(systems)} systems, {len(workspaces)} workspaces. Give --workspace once for each system, or not at all."
        )
    folders = workspaces or [newest_workspace(system) for system in systems]
    serve_workspaces(folders, port, stream=not no_stream, workers=workers, settings=settings, grpc_port=grpc_port)


main.add_command(score)
main.add_command(bench)
main.add_command(keys)


@main.command()
@click.argument("system")
@workspace_option
@json_option
def verify(system: str, workspace: Path | None, as_json: bool) -> None:
    """Judge every requirement again on the evidence of a run, and write its report anew.

    Exit code 9 when one is not met: missed, unmeasured, or stale because the declaration has changed since.

    \b
    Example:
      mainspring verify eta
    """
    from mainspring.cli.running import report_on
    from mainspring.cli.systems import find_system, newest_workspace

    declared = find_system(system).system
    report = report_on(workspace or newest_workspace(system), declared, as_json=as_json)
    if any(verdict.verdict != "met" for verdict in report.verdicts):
        sys.exit(9)


main.add_command(deploy)
main.add_command(train)
main.add_command(evaluate)
main.add_command(models)
main.add_command(export)
models.add_command(compress)
models.add_command(explain)
models.add_command(counterfactual)


main.add_command(rollout)
main.add_command(runs)
main.add_command(tune)
main.add_command(features)
features.add_command(stream)
features.add_command(dead_letters)


@main.command()
@click.argument("system")
@click.option("--key", required=True, help="COLUMN=VALUE: a key column of a source, and the value to erase.")
@workspace_option
@json_option
def erase(system: str, key: str, workspace: Path | None, as_json: bool) -> None:
    """Erase a key everywhere: events, tables, online store, answers, training sets, quarantine; with a receipt.

    Exit code 9 when something is left that a running server holds: stop it and ask again. What lies outside the workspace
    (recordings, backups, snapshots of a Redis server) is not touched.

    \b
    Example:
      mainspring erase eta --key vehicle=N713TW
    """
    from mainspring.cli.erasing import erase_key

    if not erase_key(system, key, workspace, as_json=as_json):
        sys.exit(9)


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this machine: Python, packages of every extra, data folder, disk.

    \b
    Example:
      mainspring doctor
    """
    from mainspring.cli.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([{"what": what, "good": good, "found": found} for what, good, found in findings]))
    else:
        for what, good, found in findings:
            click.echo(f"{'ok  ' if good else 'miss'}  {what:<28} {found}")
    sys.exit(0 if all(good for what, good, _ in findings if not what.startswith("extra")) else 1)
