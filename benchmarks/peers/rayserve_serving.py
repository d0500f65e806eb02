"""Ray Serve around ``booster.predict``. Usage: rayserve_serving.py MODEL PORT default|tuned.

``tuned`` sets what its documentation names for throughput, and lets a replica have a hundred requests at a time.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

if sys.argv[3] == "tuned":
    os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import lightgbm
import numpy as np
import ray
from ray import serve

NAMES = [f"f{number}" for number in range(30)]


class Scorer:
    """A row a call."""

    def __init__(self, model: str) -> None:
        self.booster = lightgbm.Booster(model_file=model)

    async def __call__(self, request: Any) -> dict[str, float]:
        body = await request.json()
        row = np.array([[body[name] for name in NAMES]])
        return {"score": float(self.booster.predict(row, num_threads=1)[0])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, logging_config={"enable_access_log": False})
    options = {"max_ongoing_requests": 100} if sys.argv[3] == "tuned" else {}
    serve.run(serve.deployment(Scorer, **options).bind(sys.argv[1]))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
