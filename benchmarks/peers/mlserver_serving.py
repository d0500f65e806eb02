"""MLServer's own LightGBM runtime. Usage: mlserver_serving.py MODEL PORT in-process|pool; ``pool`` is its default, one worker."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    model, port, mode = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="mlserver-", dir=Path(model).parent))
    ports = {"http_port": int(port), "grpc_port": int(port) + 1, "metrics_port": int(port) + 2}
    settings = {**ports, "host": "127.0.0.1", "debug": False, "parallel_workers": 1 if mode == "pool" else 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    runtime = {"name": "bench", "implementation": "mlserver_lightgbm.LightGBMModel", "parameters": {"uri": model}}
    (folder / "model-settings.json").write_text(json.dumps(runtime))
    os.execv(str(Path(sys.executable).with_name("mlserver")), ["mlserver", "start", str(folder)])
