"""Running, serving and reporting from the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.systems import find_system, free_workspace
from mainspring.errors import DeclarationError, ServingError, did_you_mean
from mainspring.storage.workspace import Workspace

if TYPE_CHECKING:
    from mainspring.design.report import Report
    from mainspring.spec import System


def run_system(
    name: str,
    source: str | None,
    data: Path | None,
    workspace: Path | None,
    *,
    since: int | None,
    until: int | None,
    log: str | None,
    online: str | None,
    keep_serving: bool,
    port: int,
    drill: bool,
    threads: int,
    as_json: bool,
) -> None:
    """The ``run`` verb; ``since`` and ``until`` are instants that cut the recording."""
    from mainspring.cli.progress import Bars
    from mainspring.loop.run import Run

    package = find_system(name)
    chosen = source or package.RECORDINGS[0]
    if chosen not in package.RECORDINGS:
        raise DeclarationError(f"System '{name}' has no recording '{chosen}'.{did_you_mean(chosen, package.RECORDINGS)}")
    folder = workspace or free_workspace(package.system, chosen)
    with Bars(quiet=as_json) as bars:
        bars.say(f"mainspring run {name} on recording '{chosen}', in {folder}/")
        bars.step("load recording", 0, 1)
        system = package.system
        recording = package.load(chosen, data).within([system.request, *system.sources], since, until)
        bars.step("load recording", 1, 1)
        if log is not None:
            Workspace(folder).keep_events_at(log)
        if online is not None:
            Workspace(folder).keep_online_at(online)
        run = Run(system, recording, Workspace(folder), bars, drill=drill, threads=threads)
        try:
            run.execute()
        finally:
            run.close()
        bars.step("report", 0, 1)
        report = report_on(folder, system, as_json=as_json, quiet=True)
        bars.step("report", 1, 1)
    show(report, as_json=as_json)
    if keep_serving:
        serve_workspaces([folder], port)


def report_on(folder: Path, declared: System, *, as_json: bool, quiet: bool = False) -> Report:
    """Judge the evidence in a workspace and write its report as HTML and JSON; print it unless ``quiet``."""
    from mainspring.design.draw import svg
    from mainspring.design.evidence import build_report
    from mainspring.design.report import to_json
    from mainspring.design.report_html import html

    workspace = Workspace(folder)
    system, report = build_report(workspace, declared)
    (workspace.report / "report.json").write_text(to_json(report))
    (workspace.report / "report.html").write_text(html(report, svg(system)))
    if not quiet:
        show(report, as_json=as_json)
    return report


def show(report: Report, *, as_json: bool) -> None:
    """Print a report to the terminal, or as JSON."""
    from rich.console import Console

    from mainspring.design.report import to_json
    from mainspring.design.report_text import print_report

    if as_json:
        click.echo(to_json(report))
    else:
        print_report(report, Console(width=None if sys.stdout.isatty() else 120))


def serve_workspaces(
    folders: Sequence[Path], port: int, *, stream: bool = True, workers: int = 1, settings: Path | None = None, grpc_port: int | None = None
) -> None:
    """Serve a system of each folder until told to stop; with ``stream`` the server also keeps the online store up with the event log.

    SIGTERM and SIGHUP go on to the server; of a terminal that is closed, SIGHUP ends it.
    """
    from mainspring.loop.server_process import ServerProcess

    with ServerProcess(*folders, port=port, stream=stream, workers=workers, settings=settings, grpc_port=grpc_port) as server:
        for number in [signal.SIGTERM] if sys.stdin.isatty() or workers == 1 else [signal.SIGTERM, signal.SIGHUP]:
            signal.signal(number, lambda number, _: server.send(number))
        rpc = "" if server.grpc_port is None else f"  gRPC: 127.0.0.1:{server.grpc_port}"
        click.echo(f"Serving {', '.join(map(str, folders))} on {server.url}{rpc}  docs: {server.url}/docs  stop: Ctrl-C")
        try:
            code = server.wait()
        except KeyboardInterrupt:
            code = 0
            click.echo("Stopped.")
    if code:
        raise ServingError(f"The server ended with {code}. Its last words are in {folders[0]}/server.log.")
