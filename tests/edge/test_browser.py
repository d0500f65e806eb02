"""The page in a real browser: the same answers as the server's over HTTP; functions that have no JavaScript are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import mainspring as ms
from delivery import NOW, build, system
from mainspring.clock import MINUTE, format_instant
from mainspring.edge.exporting import embed, write
from mainspring.edge.javascript import javascript
from mainspring.errors import ExportError
from mainspring.loop.server_process import ServerProcess
from mainspring.model_registry.registry import Registry
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace

ROWS = 1_000
GIVEN = ("at_depot__minutes_mean_7d", "at_depot__count_1d", "place__size_last")
PAGE = """<!doctype html><iframe src="index.html"></iframe><script>
const frame = document.querySelector("iframe");
const poll = setInterval(async () => {
  if (!frame.contentWindow.mainspring) return;
  clearInterval(poll);
  const told = [];
  for (const { request, given } of await (await fetch("asked.json")).json()) {
    const begin = performance.now();
    const answer = await frame.contentWindow.mainspring.answer(request, given);
    told.push({ answer, milliseconds: performance.now() - begin });
  }
  await fetch("/told", { method: "POST", body: JSON.stringify(told) });
}, 50);
</script>"""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@ms.feature
def curved(km: Any, size: Any) -> Any:
    ratio = np.where(np.isnan(km), 0.5, km) // (size + 1.0)
    bent = np.nan_to_num(np.log1p(np.abs(ratio)), nan=-1.0) % 3.0
    return np.where((bent > 1.0) & ~(size < -2.0), bent**2, -bent * np.cos(np.radians(km)))


@ms.feature
def sorted_in(km: Any) -> Any:
    return np.searchsorted([1.0, 2.0], km)


@ms.feature
def looped(km: Any) -> Any:
    for _ in range(2):
        km = km + 1
    return km


def node(source: str, tmp_path: Path) -> Any:
    page = Path(sys.modules["mainspring.edge.browser"].__file__ or "").parent / "page"
    shutil.copy(page / "runtime.mjs", tmp_path)
    (tmp_path / "functions.mjs").write_text(source)
    (tmp_path / "run.mjs").write_text(
        'import { readFileSync } from "node:fs"; import { functions } from "./functions.mjs";\n'
        'const rows = JSON.parse(readFileSync("rows.json")).map((row) => row.map((one) => one ?? NaN));\n'
        "console.log(JSON.stringify(rows.map((row) => functions.curved(...row))));"
    )
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    return [np.nan if one is None else one for one in json.loads(done.stdout)]


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


@needs_node
def test_arithmetic_in_javascript_is_that_of_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    km, size = rng.normal(0, 30, 3_000), rng.normal(0, 4, 3_000)
    km[::17] = np.nan
    rows = [[None if a != a else a, b] for a, b in zip(km.tolist(), size.tolist(), strict=True)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    found = node(javascript([curved]), tmp_path)
    assert np.allclose(found, curved(km, size), rtol=1e-12, atol=1e-12, equal_nan=True)


def test_what_has_no_javascript_is_refused_with_its_place() -> None:
    for what, function in (("np.searchsorted", sorted_in), ("for _ in range", looped)):
        with pytest.raises(ExportError, match=what) as raised:
            javascript([function])
        assert f"--given {function.name}" in str(raised.value)


class Handler(SimpleHTTPRequestHandler):
    """The folder, and a place to tell answers to."""

    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}  # noqa: RUF012

    def do_POST(self) -> None:
        server: Any = self.server
        server.told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(204)
        self.end_headers()
        server.done.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def in_chromium(folder: Path, profile: Path) -> list[dict[str, Any]]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.done, server.told = threading.Event(), []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}/run.html"
    command = ["chromium", *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", address]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert server.done.wait(120), "the browser did not answer"
        told: list[dict[str, Any]] = server.told
        return told
    finally:
        browser.terminate()
        browser.wait(20)
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.long
@needs_node
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_a_thousand_answers_of_the_page_are_those_of_the_server(tmp_path: Path) -> None:
    space = build(tmp_path / "space")
    rng = np.random.default_rng(1)
    depots, km = rng.choice(["north", "south", "west"], ROWS).tolist(), rng.uniform(0, 60, ROWS).tolist()
    asked: list[dict[str, Any]] = [
        {"drive": f"q{row}", "sent_at": format_instant(NOW - row * 7 * MINUTE), "depot": depots[row], "km": km[row] if row % 20 else None}
        for row in range(ROWS)
    ]
    served = over_http(space, asked)
    given = logged(space)
    registry = Registry(space.registry)
    done = embed(system, registry, Tables(space.tables), registry.resolve("delivery", "champion"), "browser")
    registry.close()
    folder = tmp_path / "page"
    write(folder, done.files)
    (folder / "run.html").write_text(PAGE)
    (folder / "asked.json").write_text(json.dumps([{"request": one, "given": given[one["drive"]]} for one in asked]))
    told = in_chromium(folder, tmp_path / "profile")
    apart = [difference(one["answer"], served[row]) for row, one in enumerate(told)]
    taken = np.mean([one["milliseconds"] for one in told])
    print(f"\n{len(told)} answers, difference at most {max(apart):.3g}, {taken:.3f} ms an answer in Chromium")
    assert len(told) == ROWS
    assert max(apart) <= 1e-6


def over_http(space: Workspace, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    os.environ["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
    with ServerProcess(space.path) as server, httpx.Client(base_url=server.url) as client:
        replies = [client.post("/v1/delivery?explain=false", json=one) for one in asked]
    assert {reply.status_code for reply in replies} == {200}
    return [reply.json() for reply in replies]


def logged(space: Workspace) -> dict[str, dict[str, Any]]:
    """What the server read from its store, by drive."""
    rows = PredictionLog(space.predictions).read()[0].to_pylist()
    return {row["request.drive"]: {name: row[f"feature.{name}"] for name in GIVEN} for row in rows}


def difference(page: dict[str, Any], server: dict[str, Any]) -> float:
    assert (page["version"], page["answered_by"]) == (server["version"], server["answered_by"])
    pairs = [(page["minutes"], server["minutes"])]
    pairs += [(page["interval"][end], server["interval"][end]) for end in ("low", "high")]
    return max(abs(one - other) for one, other in pairs)
