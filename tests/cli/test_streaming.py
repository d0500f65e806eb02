"""The stream on the command line: workers to the end of the log or until told, letters listed and tried again, metrics."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from mainspring.cli import main
from mainspring.clock import HOUR, parse_instant
from mainspring.feature_store.online import OnlineStore
from mainspring.storage.stores import open_key_value, open_log
from mainspring.storage.workspace import Workspace
from mainspring.systems.eta import system

T = parse_instant("2025-03-01")
NUMBERS = ("temperature_c", "wind_from_deg", "wind_speed_ms", "precipitation_mm", "pressure_hpa", "visibility_km")


def weather(first: int, count: int, type_: pa.DataType | None = None) -> pa.RecordBatch:
    hours = [T + number * HOUR for number in range(first, first + count)]
    ids = [f"w{number}" for number in range(first, first + count)]
    values = pa.array(range(first, first + count), pa.float64()).cast(type_ or pa.float64())
    columns: dict[str, Any] = {"observation_id": ids, "place": ["EWR", "JFK"] * (count // 2), "observed_at": hours}
    envelope = {"_event_id": ids, "_event_time": hours, "_known_time": hours}
    return pa.RecordBatch.from_pydict({**columns, **dict.fromkeys(NUMBERS, values), **envelope})


def ask(space: Workspace, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["features", *arguments, "eta", "--workspace", str(space.path)])
    return done.exit_code, done.output


def newest_weather(space: Workspace, hour: int) -> list[Any]:
    with closing(open_key_value(space.online_url)) as store:
        online = OnlineStore(system, store)
        place = online.names.index(next(name for name in online.names if name.startswith("weather__")))
        asked: dict[str, Any] = dict.fromkeys({name for view in system.views for name in view.on})
        return [online.read(asked | {"origin": name}, T + hour * HOUR).values[place] for name in ("EWR", "JFK")]


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "space")


def test_workers_take_what_the_log_holds_and_a_mended_letter_is_tried_again(space: Workspace) -> None:
    with closing(open_log(space.events_url)) as log:
        for batch in (weather(0, 10), weather(10, 4, pa.string())):
            log.append("weather", batch)
    done = subprocess.run(
        [sys.executable, "-m", "mainspring", "features", "stream", "eta", "--workspace", space.path, "--workers", "2", "--once"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"10 events .* lag 0 .* dead letters 2  workers 2$", done.stdout), done.stdout
    assert space.online_url.endswith("/online?shards=2")
    assert newest_weather(space, 10) == [8.0, 9.0]
    code, output = ask(space, "dead-letters", "list")
    assert (code, "4 of weather" in output, "1 dead letters" in output) == (0, True, True)
    assert ask(space, "dead-letters", "retry")[0] == 9
    [path] = space.dead_letters.glob("*.arrow")
    mended = weather(10, 4)
    with path.open("wb") as file, pa.ipc.new_stream(file, mended.schema) as stream:
        stream.write_batch(mended)
    code, output = ask(space, "dead-letters", "retry", "--json")
    assert (code, [letter["offset"] for letter in json.loads(output)["applied"]]) == (0, [10])
    assert newest_weather(space, 14) == [12.0, 13.0]
    assert json.loads(ask(space, "dead-letters", "list", "--json")[1]) == []


def test_it_follows_until_told_to_stop_and_answers_scrapes(space: Workspace) -> None:
    command = [sys.executable, "-m", "mainspring", "features", "stream", "eta", "--workspace", space.path, "--metrics-port", "0"]
    with (
        closing(open_log(space.events_url)) as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        log.append("weather", weather(0, 10))
        text = ""
        while 'mainspring_stream_events_total{worker="0"} 10' not in text:
            assert process.poll() is None
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
        for name in ("transactions_total", "dead_letters_total", "failures_total", "restarts_total", "lag", "freshness_seconds"):
            assert re.search(rf'^mainspring_stream_{name}{{worker="0"}} [\d.]+$', text, re.MULTILINE), text
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "10 events" in process.stdout.read()
    assert newest_weather(space, 10) == [8.0, 9.0]


def test_addresses_are_kept_and_a_store_is_not_divided_anew(space: Workspace, redis_url: str) -> None:
    def stream(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["features", "stream", "eta", "--workspace", str(space.path), "--once", *arguments])

    name = os.urandom(4).hex()
    done = stream("--log", f"{redis_url}#{name}", "--online", redis_url, "--workers", "2")
    assert done.exit_code == 0, done.output
    kept = space.online_url
    assert space.events_url == f"{redis_url}#{name}"
    assert re.fullmatch(re.escape(f"{redis_url}?shards=2#space-") + r"[0-9a-f]{8}", kept)
    assert stream("--online", redis_url).exit_code == 4, "the same store, in one shard"
    done = stream("--online", redis_url, "--workers", "3")
    assert (done.exit_code, space.online_url) == (4, kept)
    assert "made with 2 shards, not 3" in done.output
    done = stream("--log", "kafka://nowhere")
    assert (done.exit_code, space.events_url) == (4, f"{redis_url}#{name}")
    assert "kafka://HOST:PORT/TOPIC" in done.output
