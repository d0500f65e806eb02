"""Nets with a table large enough for shards, and shards as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.models.adapters.nets.bodies import Body, Mlp
from mainspring.models.adapters.nets.columns import LearnedColumns, NumberColumn
from mainspring.models.adapters.nets.net import NetPredictor, build
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.large_tables import LargeTable
from mainspring.storage.blobs import FolderBlobs

NAMES = ("amount", "place", "kind")
PLACES = 70_000
"""With vectors of 16 float32 a table of 4.3 MiB."""


def net(seed: int, body: Body | None = None) -> NetPredictor:
    """A net with weights drawn from ``seed``."""
    columns = LearnedColumns(NAMES, {"amount": NumberColumn((0.0, 1.0), (0.0, 1.0), gaps=True)}, {"place": PLACES + 1, "kind": 6})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build(body or Mlp((32, 16)), columns, 16, (Task("regression"),))
        for one in made.parameters():
            torch.nn.init.normal_(one, std=0.3)
    return NetPredictor(columns, body or Mlp((32, 16)), 16, (Task("regression"),), made.eval())


def questions(rows: int, seed: int = 0) -> Any:
    """Rows with known and unknown places, some of them often."""
    rng = np.random.default_rng(seed)
    places = np.where(rng.random(rows) < 0.3, rng.integers(0, 5, rows), rng.integers(0, PLACES + 100, rows)).astype(float)
    places[rng.random(rows) < 0.05] = np.nan
    return np.column_stack([rng.normal(size=rows), places, rng.integers(0, 7, rows)])


def stored(folder: Path, files: Mapping[str, bytes]) -> None:
    """Keep files as a registry does."""
    blobs = FolderBlobs(folder)
    for data in files.values():
        blobs.put(data)


@dataclass
class Shard:
    """A process; ``address`` is where it listens."""

    process: subprocess.Popen[str]
    address: str

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start(folder: Path, number: int, shards: int, listen: str = "127.0.0.1:0") -> Shard:
    own = [sys.executable, "-m", "mainspring.gateway.processes.shard", "--exit-with-parent"]
    command = [*own, "--artifacts", str(folder), "--shard", str(number), "--of", str(shards), "--listen", listen]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return Shard(process, process.stdout.readline().strip())


def end(shards: Sequence[Shard]) -> None:
    for shard in shards:
        shard.process.kill()
        shard.process.communicate()


@contextmanager
def running(folder: Path, shards: int) -> Iterator[list[Shard]]:
    started = [start(folder, number, shards) for number in range(shards)]
    try:
        yield started
    finally:
        end(started)


def table(files: Mapping[str, bytes]) -> LargeTable:
    """The one large table of a net's files."""
    import json

    (one,) = json.loads(files["net.json"])["tables"]
    return LargeTable.from_dict(one)
