from __future__ import annotations

import json
import os
import sys

import pytest

from chaos.load import post
from delivery import build
from mainspring.storage.workspace import Workspace

GOOD = {"drive": "x", "sent_at": "2025-02-10T12:00:00Z", "depot": "north", "km": 12.5}


@pytest.fixture(scope="session")
def request_bytes() -> bytes:
    return post("/v1/delivery?explain=false", json.dumps(GOOD).encode())


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    os.environ["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
    return build(tmp_path_factory.mktemp("chaos") / "space")
