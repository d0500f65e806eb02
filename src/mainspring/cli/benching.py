"""``mainspring bench``: load on a running service, and what it came to."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.clock import SECOND, SystemClock, parse_duration
from mainspring.errors import DataError

if TYPE_CHECKING:
    from mainspring.cli.progress import Bars
    from mainspring.loop.load.drive import Target, Watch
    from mainspring.loop.load.histogram import Nanoseconds
    from mainspring.loop.load.recorder import Load
    from mainspring.loop.load.search import Found
    from mainspring.spec import Source

_BODIES = 5_000


class _Seconds(click.ParamType[float]):
    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ARG002
        return parse_duration(value) / SECOND if isinstance(value, str) else value


_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("system", required=False)
@click.option("--url", default=None, help="Address to ask; without it the system is served from its workspace for the while.")
@click.option("--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system.")
@click.option("--body", default=None, help="One JSON body to send again and again.")
@click.option("--requests", default=None, help="File with a JSON body a line, or 'log' for the newest answered requests; else made up.")
@click.option("--rate", type=_POSITIVE, default=100.0, show_default=True, help="Requests a second; where --find-max starts.")
@click.option("--arrivals", type=click.Choice(["poisson", "constant", "recorded"]), default="poisson", show_default=True)
@click.option("--speed", type=_POSITIVE, default=1.0, show_default=True, help="Times as fast as recorded.")
@click.option("--closed", is_flag=True, help="Closed loop instead: --connections that ask as fast as they are answered.")
@click.option("--connections", type=click.IntRange(min=1), default=64, show_default=True, help="Most of them (open loop), all (closed).")
@click.option("--duration", type=_Seconds(), default="10s", show_default=True, help="Counted time.")
@click.option("--warm-up", type=_Seconds(), default="2s", show_default=True, help="Time before that, not counted.")
@click.option("--timeout", type=_Seconds(), default="5s", show_default=True, help="When a request counts as timed out.")
@click.option("--find-max", is_flag=True, help="Raise the rate until p99 or 0.1 % failures break the promise.")
@click.option("--p99", type=_Seconds(), default=None, help="Promised 99th percentile; exit code 9 when it does not hold.")
@click.option("--seed", default=0, show_default=True, help="Of arrivals and made requests.")
@click.option("--page", type=click.Path(path_type=Path), default=None, help="HTML file with plots to write.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    system: str | None,
    url: str | None,
    workspace: Path | None,
    body: str | None,
    requests: str | None,
    rate: float,
    arrivals: str,
    speed: float,
    closed: bool,
    connections: int,
    duration: float,
    warm_up: float,
    timeout: float,
    find_max: bool,
    p99: float | None,
    seed: int,
    page: Path | None,
    as_json: bool,
) -> None:
    """Put load on a service and measure its latencies, from the instant that each request was due.

    \b
    Example:
      mainspring bench eta --requests log --rate 200 --page bench.html
      mainspring bench eta --requests log --find-max --p99 20ms
      mainspring bench --url http://127.0.0.1:8000/v1/eta --requests bodies.jsonl --closed
    """
    from mainspring.cli.progress import Bars
    from mainspring.loop.load import schedule, search
    from mainspring.loop.load.drive import Settings, drive, drive_closed

    _refuse(system, url, body, requests, closed, arrivals, find_max, p99)
    settings = Settings(warm_up, connections, timeout)
    with _target(system, url, workspace) as (target, address), Bars(quiet=as_json) as bars:
        bodies, source = _bodies(system, workspace, body, requests, seed)
        wire = _on_the_wire(target, bodies)

        def measure(asked: float) -> Load:
            if arrivals == "recorded":
                due = _recorded(bodies, source, speed)
            elif arrivals == "constant":
                due = schedule.constant(asked, warm_up + duration)
            else:
                due = schedule.poisson(asked, warm_up + duration, seed)
            return drive(target, wire, due, settings, _watching(bars, f"{asked:,.0f}/s" if arrivals != "recorded" else "as recorded"))

        found: Found | None = None
        if closed:
            loads: tuple[Load, ...] = (drive_closed(target, wire, duration, settings, _watching(bars, f"{connections} connections")),)
        elif find_max:
            assert p99 is not None
            found = search.find_max(measure, rate, p99)
            loads = found.loads
        else:
            loads = (measure(rate),)
    if page is not None:
        from mainspring.design.load_html import html

        page.write_text(html(address, loads))
    _show(address, loads, found, page, as_json=as_json)
    if p99 is not None and not _kept(loads, found, p99):
        sys.exit(9)


def _refuse(
    system: str | None,
    url: str | None,
    body: str | None,
    requests: str | None,
    closed: bool,
    arrivals: str,
    find_max: bool,
    p99: float | None,
) -> None:
    if system is None and (url is None or (body is None and requests in (None, "log"))):
        raise click.UsageError("Name a SYSTEM, or an address with --url and what to send with --body or --requests FILE.")
    if body is not None and requests is not None:
        raise click.UsageError("--body and --requests are two ways to say what to send: give one.")
    if find_max and (p99 is None or closed or arrivals == "recorded"):
        raise click.UsageError("--find-max needs --p99, and arrivals that are constant or poisson.")
    if arrivals == "recorded" and (system is None or requests is None):
        raise click.UsageError("--arrivals recorded needs a SYSTEM, which says where the times are, and --requests.")


@contextmanager
def _target(system: str | None, url: str | None, workspace: Path | None) -> Iterator[tuple[Target, str]]:
    from mainspring.loop.load.drive import Target

    if url is not None:
        yield Target.of(url), url
        return
    from mainspring.cli.systems import newest_workspace
    from mainspring.loop.server_process import ServerProcess

    assert system is not None
    with ServerProcess(workspace or newest_workspace(system)) as server:
        address = f"{server.url}/v1/{system}?explain=false"
        yield Target.of(address), address


def _bodies(
    system: str | None, workspace: Path | None, body: str | None, requests: str | None, seed: int
) -> tuple[list[bytes], Source | None]:
    from mainspring.loop.load import traffic

    source: Source | None = None
    if system is not None:
        from mainspring.cli.systems import find_system

        declared = find_system(system).system
        source = declared.request
        required = sorted({aggregate.view.name for aggregate in declared.aggregates if aggregate.view.required})
        if body is None and requests is None and required:
            raise DataError(
                f"System '{system}': made requests have unknown keys, which its views {', '.join(required)} refuse. "
                "Send answered ones with --requests log, or a file of real ones."
            )
    if body is not None:
        return [body.encode()], source
    if requests is not None and requests != "log":
        return traffic.from_file(Path(requests)), source
    assert system is not None
    assert source is not None
    if requests is None:
        return traffic.synthetic(source, _BODIES, seed, SystemClock().now()), source
    from mainspring.cli.systems import newest_workspace
    from mainspring.storage.workspace import Workspace

    return traffic.answered(Workspace(workspace or newest_workspace(system)), source), source


def _on_the_wire(target: Target, bodies: Sequence[bytes]) -> list[bytes]:
    from mainspring.loop.connection import post

    return [post(f"{target.host}:{target.port}", target.path, body) for body in bodies]


def _recorded(bodies: Sequence[bytes], source: Source | None, speed: float) -> Nanoseconds:
    from mainspring.loop.load import schedule, traffic

    assert source is not None
    return schedule.recorded(traffic.instants(bodies, source), speed)


def _watching(bars: Bars, stage: str) -> Watch:
    return lambda done, total: bars.step(stage, int(done * 1e3), max(1, int(total * 1e3)))


def _kept(loads: tuple[Load, ...], found: Found | None, p99: float) -> bool:
    return found.rate > 0 if found is not None else loads[-1].percentile(0.99) <= p99


def _show(address: str, loads: tuple[Load, ...], found: Found | None, page: Path | None, *, as_json: bool) -> None:
    from rich.console import Console

    from mainspring.design.load_text import print_loads

    if as_json:
        figures = {"url": address, "loads": [load.to_dict() for load in loads]}
        click.echo(json.dumps(figures | ({} if found is None else {"max_rate": found.rate, "because": found.because})))
        return
    print_loads(loads, Console(width=None if sys.stdout.isatty() else 150))
    if found is not None:
        click.echo(f"Most that holds: {found.rate:,.0f}/s; {found.because}.")
    if page is not None:
        click.echo(f"Wrote {page}.")
