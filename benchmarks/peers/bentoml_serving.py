"""BentoML around ``booster.predict``. Usage: bentoml_serving.py MODEL PORT default|tuned; ``tuned`` batches adaptively."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
import lightgbm
import numpy as np
from pydantic import create_model

NAMES = [f"f{number}" for number in range(30)]
Body = create_model("Body", id=(str, ...), at=(str, ...), **dict.fromkeys(NAMES, (float, ...)))


@bentoml.service
class Single:
    """A row a call."""

    def __init__(self) -> None:
        self.booster = lightgbm.Booster(model_file=os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, body: Body, /) -> dict[str, float]:  # type: ignore[valid-type]
        row = np.array([[getattr(body, name) for name in NAMES]])
        return {"score": float(self.booster.predict(row, num_threads=1)[0])}


@bentoml.service
class Batched:
    """Rows that came together."""

    def __init__(self) -> None:
        self.booster = lightgbm.Booster(model_file=os.environ["BENCH_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, rows: list[Body]) -> list[float]:  # type: ignore[valid-type]
        x = np.array([[getattr(row, name) for name in NAMES] for row in rows])
        scores: list[float] = self.booster.predict(x, num_threads=1).tolist()
        return scores


if __name__ == "__main__":
    model, port, mode = sys.argv[1:]
    here = Path(__file__)
    service = f"{here.stem}:{'Batched' if mode == 'tuned' else 'Single'}"
    options = ["--quiet", "--do-not-track", "--host", "127.0.0.1", "--port", port, "--working-dir", str(here.parent)]
    os.environ["BENCH_MODEL"] = model
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", service, *options])
