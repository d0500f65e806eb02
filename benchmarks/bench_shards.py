"""A net with a table of 2 M x 64 float32: a process that holds it whole beside one whose table is in two shards. `make bench-shards`.

Both sides are processes of their own that load the net from content-addressed files; their answers are compared before any is timed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from harness import QUICK, Bar, bar, interleaved, write

from mainspring.models.adapters.nets.bodies import Mlp
from mainspring.models.adapters.nets.columns import LearnedColumns, NumberColumn
from mainspring.models.adapters.nets.net import NetLearner, NetPredictor, build
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.artifacts import Artifacts
from mainspring.serving.shards.client import sharded
from mainspring.storage.blobs import FolderBlobs

ITEMS = 1_000_000 if QUICK else 2_000_000
WIDTH = 64
SHARDS = 2
TABLE = ITEMS * WIDTH * 4 / 2**20
"""MiB."""
ROUNDS = 5 if QUICK else 15
SIZES = (1, 64, 500)
ASKED = 20
DEADLINE = 5.0
NAMES = ("price", "item")


def main() -> int:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        store(folder)
        shards = [stack.enter_context(shard(folder, number)) for number in range(SHARDS)]
        empty = [_status(one.pid)["VmRSS"] for one, _ in shards]
        whole = stack.enter_context(side(folder, []))
        apart = stack.enter_context(side(folder, [address for _, address in shards]))
        memory = [json.loads(ask(one, "memory")) for one in (whole, apart)]
        for size in SIZES:
            if ask(whole, f"answers {size}") != ask(apart, f"answers {size}"):
                raise SystemExit(f"{size} rows: the answers of both sides differ.")
        bars = list(latencies(whole, apart))
        held = [(_status(one.pid)["VmRSS"] - before) * SHARDS / TABLE for (one, _), before in zip(shards, empty, strict=True)]
        taken = [one["VmRSS"] - one["before"] for one in memory]
        peak = [one["VmHWM"] - one["before"] for one in memory]
        return write(
            "shards",
            [
                bar("memory of a process that has the table", "MiB", [memory[0]["VmRSS"]]),
                bar("memory of a process whose table is in shards", "MiB", [memory[1]["VmRSS"]], peer=memory[0]["VmRSS"]),
                bar("memory that the net takes, in shards to whole", "ratio", [taken[1] / taken[0]], bar=0.1),
                bar("the same at the peak of its loading", "ratio", [peak[1] / peak[0]], bar=0.1),
                bar("memory that a shard takes for its share, to the share", "ratio", held, bar=1.2),
                bar("loading the net, into shards that have nothing yet", "s", [memory[1]["seconds"]], peer=memory[0]["seconds"]),
                *bars,
            ],
        )


def latencies(whole: subprocess.Popen[str], apart: subprocess.Popen[str]) -> Iterator[Bar]:
    for size in SIZES:

        def measured(one: subprocess.Popen[str], size: int = size) -> float:
            return float(ask(one, f"time {size}"))

        found = interleaved(ROUNDS, {"whole": lambda: measured(whole), "apart": lambda: measured(apart)})
        rows = f"{size} row{'s' if size > 1 else ''}"
        yield bar(f"predict {rows}, table in shards", "us", found["apart"], peer=float(np.median(found["whole"])))
        ratios = [a / b for a, b in zip(found["apart"], found["whole"], strict=True)]
        yield bar(f"predict {rows}, in shards to whole", "ratio", ratios)


def store(folder: Path) -> None:
    columns = LearnedColumns(NAMES, {"price": NumberColumn((0.0, 1.0), (0.0, 1.0), gaps=False)}, {"item": ITEMS})
    torch.manual_seed(0)
    tasks = (Task("regression"),)
    net = NetPredictor(columns, Mlp(), WIDTH, tasks, build(Mlp(), columns, WIDTH, tasks).eval())
    torch.nn.init.normal_(net.net[-1].weight)
    blobs = FolderBlobs(folder)
    (folder / "files.json").write_text(json.dumps({name: blobs.put(data) for name, data in net.to_artifacts().items()}))


@contextmanager
def shard(folder: Path, number: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    own = [sys.executable, "-m", "mainspring.gateway.processes.shard", "--exit-with-parent", "--listen", f"unix:{folder}/{number}"]
    with _process([*own, "--artifacts", str(folder), "--shard", str(number), "--of", str(SHARDS)]) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()


@contextmanager
def side(folder: Path, addresses: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with _process([sys.executable, __file__, str(folder), *addresses]) as process:
        yield process


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def ask(process: subprocess.Popen[str], question: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    print(question, file=process.stdin, flush=True)
    return process.stdout.readline().strip()


def answer(folder: Path, addresses: Sequence[str]) -> None:
    """One side: load the net, then answer what standard input asks."""
    torch.set_num_threads(1)
    names, blobs = json.loads((folder / "files.json").read_text()), FolderBlobs(folder)
    before, began = _status(os.getpid())["VmRSS"], time.perf_counter()
    tables = sharded(addresses, DEADLINE) if addresses else None
    net = NetLearner().load(Artifacts(names, lambda name: blobs.get(names[name])), NAMES, tables)
    seconds = time.perf_counter() - began
    rng = np.random.default_rng(0)
    for line in sys.stdin:
        what, _, size = line.strip().partition(" ")
        if what == "memory":
            print(json.dumps({**_status(os.getpid()), "before": before, "seconds": seconds}), flush=True)
        elif what == "answers":
            print(hashlib.sha256(net.predict(questions(int(size), np.random.default_rng(1))).tobytes()).hexdigest(), flush=True)
        else:
            times = [_timed(net, questions(int(size), rng)) for _ in range(ASKED)]
            print(float(np.median(times)), flush=True)


def questions(rows: int, rng: np.random.Generator) -> Any:
    return np.column_stack([rng.random(rows), rng.integers(0, ITEMS - 1, rows)])


def _timed(net: NetPredictor, x: Any) -> float:
    began = time.perf_counter()
    net.predict(x)
    return (time.perf_counter() - began) * 1e6


def _status(pid: int) -> dict[str, float]:
    """MiB that a process has resident, and had at most."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        answer(Path(sys.argv[1]), sys.argv[2:])
    else:
        raise SystemExit(main())
