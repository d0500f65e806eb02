"""Batches that never wait beside one ask at a time: the same loop, thread and model, in process, so that only batching differs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from harness import QUICK, Bar, bar, interleaved, write

from mainspring.models.adapters.lightgbm import LightGBMLearner
from mainspring.models.adapters.nets.bodies import Mlp
from mainspring.models.adapters.nets.fitting import Schedule
from mainspring.models.adapters.nets.net import NetLearner
from mainspring.models.encoding import Encoder
from mainspring.models.protocol import Predictor, Rows
from mainspring.models.tabular import TabularModel
from mainspring.serving.answer import Ask
from mainspring.serving.batching import Batcher, Result

ROUNDS, SECONDS, WARM_UP = (3, 0.3, 0.1) if QUICK else (9, 1.0, 0.3)
WIDTH, ROWS, ASKED = 30, 20_000, 512
NAMES = [f"f{number}" for number in range(WIDTH)]
CLIENTS = {1: 0.95, 64: 1.3}
"""The least that batching makes of the throughput, by how many ask at once."""


class Alone(Batcher):
    """One request a batch."""

    def _take(self) -> list:  # type: ignore[type-arg]
        return [self._waiting.popleft()]


def main() -> int:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, WIDTH))
    rows = Rows(x, x[:, 0] + x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) + 0.1 * rng.normal(size=ROWS))
    asked = [tuple(row) for row in x[:ASKED].tolist()]
    return write("batching", [one for name, fit in _models().items() for one in _bars(name, fit(rows), asked)])


def _models() -> dict[str, Callable[[Rows], TabularModel]]:
    return {
        "200 trees of 31 leaves": lambda rows: _trees(rows, 200, 31),
        "1,000 trees of 63 leaves": lambda rows: _trees(rows, 1_000, 63),
        "net 30-64-32-1": lambda rows: _net(rows, (64, 32)),
        "net 30-1024-1024-1": lambda rows: _net(rows, (1024, 1024)),
    }


def _bars(name: str, model: TabularModel, asked: Sequence[tuple[float, ...]]) -> list[Bar]:
    print(name, file=sys.stderr)
    _check(model, asked)
    bars = []
    for clients, least in CLIENTS.items():
        what = f"{name}, {clients} client{'s' if clients > 1 else ''}"
        sides = {kind.__name__: partial(_rate, kind, model, asked, clients) for kind in (Batcher, Alone)}
        took = interleaved(ROUNDS, sides)
        ratios = [together / alone for together, alone in zip(took["Batcher"], took["Alone"], strict=True)]
        bars.append(bar(what, "1/s", took["Batcher"], peer=float(np.median(took["Alone"]))))
        bars.append(bar(f"{what}: times the throughput of one ask a batch", "x", ratios, bar=least, above=True))
    return bars


def _rate(kind: type[Batcher], model: TabularModel, asked: Sequence[tuple[float, ...]], clients: int) -> float:
    """Answers a second to so many that ask again as soon as they are answered."""

    def run(asks: Sequence[Ask]) -> Sequence[Result]:
        return model.predict_rows([asked[int(ask.request_id)] for ask in asks])

    async def drive() -> float:
        batcher, answered = kind(run, run), 0
        started = time.perf_counter()
        counted_from, end = started + WARM_UP, started + WARM_UP + SECONDS

        async def client(number: int) -> None:
            nonlocal answered
            while (now := time.perf_counter()) < end:
                ns = time.perf_counter_ns()
                (answer,) = await batcher.submit([Ask(str(number), {}, False, ns, ns + 60_000_000_000)])
                if isinstance(answer, Exception):
                    raise answer
                answered += now >= counted_from
                number = (number + 1) % ASKED

        await asyncio.gather(*(client(number) for number in range(clients)))
        batcher.close()
        return answered / (time.perf_counter() - counted_from)

    return asyncio.run(drive())


def _check(model: TabularModel, asked: Sequence[tuple[float, ...]]) -> None:
    """A batch gives each row what it gets alone, to the bit."""
    together = model.predict_rows(asked[:64])
    if together != [model.predict_row(row) for row in asked[:64]]:
        raise SystemExit("A batch changes answers.")


def _trees(rows: Rows, trees: int, leaves: int) -> TabularModel:
    settings = {"objective": "regression", "trees": trees, "leaves": leaves}
    booster = LightGBMLearner(**settings).fit(rows, names=NAMES, threads=1)  # type: ignore[arg-type]
    return _model("lightgbm", booster)


def _net(rows: Rows, hidden: tuple[int, ...]) -> TabularModel:
    """After one epoch: its speed does not hang on its weights."""
    learner = NetLearner(body=Mlp(hidden), schedule=Schedule(epochs=1))
    return _model("net", learner.fit(Rows(rows.x[:2_000], rows.y[:2_000]), names=NAMES, categorical=[], held_out=None, seed=0, threads=1))


def _model(kind: str, predictor: Predictor) -> TabularModel:
    return TabularModel(Encoder(tuple(NAMES), {}, {}), kind, {}, predictor)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    sys.exit(main())
