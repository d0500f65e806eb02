"""Both forms of the Open Inference Protocol against a client that this project did not write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from delivery import build
from mainspring.loop.server_process import ServerProcess

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_tritonclient_hears_one_answer_in_json_binary_and_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    from mainspring.gateway.adapters.inference_messages import messages

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from harness import peer

    python = peer("tritonclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([part for part in sys.path if part]))
    with ServerProcess(build(tmp_path / "space").path, grpc_port=0) as server:
        command = [str(python), str(Path(__file__).with_name("foreign_client.py")), str(server.port), str(server.grpc_port)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout)
    assert heard["json"] == heard["binary"] == heard["grpc"]
    assert heard["json"]["answered_by"] == ["model"] * 3
    assert heard["live"] == [True, True]
    assert heard["refused"] == "StatusCode.NOT_FOUND"
    over_http, over_grpc = heard["metadata"]
    assert [one["name"] for one in over_http["inputs"]] == [one["name"] for one in over_grpc["inputs"]]
    for name, kind in messages().items():
        assert [[one.name, one.number, one.type] for one in kind.DESCRIPTOR.fields] == heard["shapes"][f"inference.{name}"]
