"""What an extra is missing for says so, with the line that installs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway_service import RuleService

from mainspring.errors import MissingExtraError
from mainspring.gateway.app import App
from mainspring.gateway.door.door import open_door
from mainspring.gateway.settings import Settings, Traces


def over_grpc(folder: Path) -> None:
    from mainspring.gateway.adapters.grpc_inference import GrpcInference

    GrpcInference(App(RuleService(folder)), "127.0.0.1", 0)


def with_traces(_: Path) -> None:
    open_door(Settings(traces=Traces("http://127.0.0.1:9/v1/traces")))


def on_ray(folder: Path) -> None:
    from mainspring.gateway.adapters.ray_serve import application

    application({"workspace": str(folder)})


@pytest.mark.parametrize(
    ("use", "package", "extra"), [(over_grpc, "grpc", "grpc"), (with_traces, "opentelemetry", "otel"), (on_ray, "ray", "rayserve")]
)
def test_a_missing_extra_is_named(
    use: Callable[[Path], None], package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'mainspring\[{extra}\]'"):
        use(tmp_path)
