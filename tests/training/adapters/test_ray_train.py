"""Training jobs over real Ray workers on this machine: the weights of `launch`, whoever dies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from spread_jobs import SCHEDULE, beginning, job

from mainspring.errors import DeclarationError, TrainingError
from mainspring.training.adapters.distributed.checkpoint import Checkpoints
from mainspring.training.adapters.distributed.launch import launch

LAST = SCHEDULE.epochs * 10


def test_another_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="'ray:HOST:PORT'"):
        launch(job(tmp_path, "ddp"), 2, over="slurm")


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    pytest.importorskip("ray", reason="the long suites install it")
    from mainspring.training.adapters.ray_cluster import cluster

    with cluster("ray", 2):
        yield


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job by our own launch."""
    folder = tmp_path_factory.mktemp("launched")
    launch(job(folder, "ddp"), 2)
    return folder


def weights(folder: Path, parallel: str) -> dict[str, Any]:
    net = beginning().net.double()
    assert Checkpoints(folder, job(folder, parallel).identity()).weights(net) == LAST
    return dict(net.state_dict())


def distance(some: dict[str, Any], others: dict[str, Any]) -> float:
    return max(float((some[name] - others[name]).abs().max()) for name in some)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("_cluster")
class TestOverRay:
    @pytest.mark.parametrize("parallel", ["ddp", "fsdp", "pipeline-1f1b"])
    def test_ray_reaches_the_weights_of_launch(self, tmp_path: Path, launched: Path, parallel: str) -> None:
        launch(job(tmp_path, parallel), 2, over="ray")
        assert distance(weights(tmp_path, parallel), dict(beginning().net.double().state_dict())) > 0.1
        assert distance(weights(tmp_path, parallel), weights(launched, "ddp")) < 1e-6
        assert not (tmp_path / "ray").exists()

    def test_a_killed_worker_is_started_again_from_the_checkpoint(self, tmp_path: Path, launched: Path) -> None:
        (tmp_path / "kill").write_text("15")
        launch(job(tmp_path, "ddp"), 2, restarts=1, over="ray")
        assert not (tmp_path / "kill").exists()
        assert distance(weights(tmp_path, "ddp"), weights(launched, "ddp")) == 0.0

    def test_what_fails_in_the_workers_is_told(self, tmp_path: Path) -> None:
        odd = job(tmp_path, "ddp", schedule=replace(SCHEDULE, batch=63))
        with pytest.raises(TrainingError, match="Choose a multiple of 2"):
            launch(odd, 2, restarts=0, over="ray")
