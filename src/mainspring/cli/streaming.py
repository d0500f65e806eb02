"""The stream on the command line: workers that follow the event log, and the letters they set aside."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.features import json_option
from mainspring.clock import SystemClock, format_instant

if TYPE_CHECKING:
    from mainspring.feature_store.workers import Workers, WorkerState
    from mainspring.storage.workspace import Workspace

_WATCH_SECONDS = 0.1
_PRINT_SECONDS = 5.0

workspace_option = click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system under mainspring-work/."
)


@click.command()
@click.argument("system")
@workspace_option
@click.option(
    "--workers", type=click.IntRange(1), default=None, help="Processes, each with a shard of the store; as many as the store has."
)
@click.option(
    "--log", "log_url", default=None, help="Address of the event log: a folder, redis://HOST:PORT/DB#STREAM, kafka://HOST:PORT/TOPIC."
)
@click.option("--online", "online_url", default=None, help="Address of the online store: lmdb:FOLDER or redis://HOST:PORT/DB#NAMESPACE.")
@click.option("--rows", type=click.IntRange(1), default=10_000, show_default=True, help="Events of one transaction of a worker.")
@click.option(
    "--poll", type=click.FloatRange(min=0.001), default=0.05, show_default=True, help="Seconds between looks at the end of the log."
)
@click.option("--metrics-port", type=int, default=None, help="Serve Prometheus metrics on this port of 127.0.0.1; 0 for a free one.")
@click.option("--once", is_flag=True, help="Stop when all that the log holds is in the store.")
@json_option
def stream(
    system: str,
    workspace: Path | None,
    workers: int | None,
    log_url: str | None,
    online_url: str | None,
    rows: int,
    poll: float,
    metrics_port: int | None,
    once: bool,
    as_json: bool,
) -> None:
    """Keep the online store up with the event log, until interrupted. Addresses given are kept: what serves reads the same store.

    \b
    Example:
      mainspring features stream eta
      mainspring features stream eta --workers 4 --online lmdb:eta-online --metrics-port 9100
      mainspring features stream eta --log redis://localhost:6379/0#events --online redis://localhost:6379/1#eta
    """
    from mainspring.cli.systems import find_system
    from mainspring.feature_store.workers import Job, Workers

    declared = find_system(system).system
    space = _space(system, workspace)
    _keep_addresses(space, log_url, online_url, workers)
    job = Job(declared.to_json(), space.events_url, space.online_url, space.dead_letters, rows, poll)
    stop = threading.Event()
    running = Workers(job, SystemClock())
    with _stopping(stop), _scraped(running, metrics_port), running:
        begun = printed = time.monotonic()
        passed = 0
        while not stop.wait(_WATCH_SECONDS):
            states = running.watch()
            if once and all(state.progress.lag == 0 for state in states):
                break
            if time.monotonic() - printed >= _PRINT_SECONDS:
                _print(states, (_events(states) - passed) / (time.monotonic() - printed), as_json=as_json)
                passed, printed = _events(states), time.monotonic()
    _print(running.states, _events(running.states) / (time.monotonic() - begun), as_json=as_json)


@click.group("dead-letters")
def dead_letters() -> None:
    """Events that do not fit the declaration, which the stream left out of the online store.

    \b
    Example:
      mainspring features dead-letters list eta
      mainspring features dead-letters retry eta
    """


@dead_letters.command("list")
@click.argument("system")
@workspace_option
@json_option
def list_letters(system: str, workspace: Path | None, as_json: bool) -> None:
    """Every letter: which events of the log, when and why. The events lie beside it as an Arrow stream and may be mended there."""
    from mainspring.feature_store.dead_letters import DeadLetters

    space = _space(system, workspace)
    letters = DeadLetters(space.dead_letters).letters()
    if as_json:
        click.echo(json.dumps([asdict(letter) for letter in letters]))
        return
    for letter in letters:
        click.echo(f"{format_instant(letter.at)}  {letter.rows:>7,} of {letter.source}  {letter.reason}")
    click.echo(f"{len(letters)} dead letters in {space.dead_letters}. When mended: mainspring features dead-letters retry {system}")


@dead_letters.command()
@click.argument("system")
@workspace_option
@json_option
def retry(system: str, workspace: Path | None, as_json: bool) -> None:
    """Apply the letters that fit by now, each once, and drop them. Exit code 9 when one is left."""
    from mainspring.cli.systems import find_system
    from mainspring.feature_store.dead_letters import DeadLetters
    from mainspring.feature_store.online import OnlineStore
    from mainspring.storage.stores import open_key_value

    space = _space(system, workspace)
    with closing(open_key_value(space.online_url)) as store:
        done, left = DeadLetters(space.dead_letters).retry(OnlineStore(find_system(system).system, store))
    if as_json:
        click.echo(json.dumps({"applied": [asdict(letter) for letter in done], "left": [asdict(letter) for letter in left]}))
    else:
        for letter in left:
            click.echo(f"left     {letter.rows:>7,} of {letter.source}  {letter.reason}")
        click.echo(f"Applied {len(done)} dead letters, left {len(left)} in {space.dead_letters}.")
    if left:
        raise SystemExit(9)


def _space(system: str, workspace: Path | None) -> Workspace:
    from mainspring.cli.systems import newest_workspace
    from mainspring.storage.workspace import Workspace

    return Workspace(workspace or newest_workspace(system))


def _keep_addresses(space: Workspace, log_url: str | None, online_url: str | None, workers: int | None) -> None:
    """Keep the addresses given, once the log and the store there have been opened."""
    from mainspring.storage.stores import open_key_value, open_log, with_shards

    open_log(log_url or space.events_url).close()
    if log_url is not None:
        space.keep_events_at(log_url)
    online = space.online_url if online_url is None else space.in_own_namespace(online_url)
    if workers is not None:
        online = with_shards(online, workers)
    open_key_value(online).close()
    if online != space.online_url:
        space.keep_online_at(online)


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set ``stop`` instead of ending the process."""
    held = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


@contextmanager
def _scraped(running: Workers, port: int | None) -> Iterator[None]:
    """Answer scrapes on ``port``, if there is one."""
    from mainspring.gateway.metrics import scraped, stream_text

    if port is None:
        yield
        return
    with scraped(port, lambda: stream_text(running.states, SystemClock().now())) as bound:
        click.echo(f"Metrics on http://127.0.0.1:{bound}/metrics", err=True)
        yield


def _events(states: Sequence[WorkerState]) -> int:
    """Events of the log that every worker has passed."""
    return min(state.progress.events for state in states)


def _print(states: Sequence[WorkerState], rate: float, *, as_json: bool) -> None:
    now = SystemClock().now()
    if as_json:
        click.echo(json.dumps({"events_per_second": rate, "workers": [asdict(state) for state in states]}))
        return
    lags = [state.progress.lag for state in states]
    fresh = [state.progress.freshness_us(now) for state in states]
    known = [one for one in fresh if one is not None]
    lag = "unknown" if None in lags else f"{max(one for one in lags if one is not None):,}"
    newest = f"{max(known) / 1e6:,.1f} s" if known else "none"
    dead, again = (sum(values) for values in zip(*((one.progress.dead_letters, one.restarts) for one in states), strict=True))
    line = f"{_events(states):,} events  {rate:,.0f}/s  lag {lag}  newest {newest} old  dead letters {dead}"
    click.echo(f"{line}  workers {len(states)}{f', restarted {again}' if again else ''}")
