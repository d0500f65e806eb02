"""LitServe around ``booster.predict``. Usage: litserve_serving.py MODEL PORT default|tuned.

``tuned`` has what its documentation advises for throughput: batches of up to 64 that wait 10 ms, two workers, its fast queue.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import lightgbm
import litserve
import numpy as np

NAMES = [f"f{number}" for number in range(30)]


class Single(litserve.LitAPI):
    """A row a call."""

    def setup(self, device: str) -> None:
        del device
        self.booster = lightgbm.Booster(model_file=sys.argv[1])

    def decode_request(self, request) -> list[float]:  # type: ignore[no-untyped-def]
        return [request[name] for name in NAMES]

    def predict(self, row: list[float]) -> float:
        return float(self.booster.predict(np.array([row]), num_threads=1)[0])

    def encode_response(self, output: float) -> dict[str, float]:
        return {"score": float(output)}


class Batched(Single):
    """Rows that came together."""

    def batch(self, inputs: Sequence[list[float]]) -> Any:
        return np.array(inputs)

    def predict(self, rows: Any) -> Any:
        return self.booster.predict(rows, num_threads=1)

    def unbatch(self, output: Any) -> list[float]:
        return output.tolist()


if __name__ == "__main__":
    if sys.argv[3] == "tuned":
        api = Batched(max_batch_size=64, batch_timeout=0.01)
        server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2, fast_queue=True)
    else:
        server = litserve.LitServer(Single(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False, access_log=False)
