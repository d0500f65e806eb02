"""Two processes on this machine, by torchrun and by `launch`: the weights of one process, whatever the spread and whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spread_jobs
from spread_jobs import LEARNER, NAMES, SCHEDULE, SPREADS, beginning, job, rows, work

from mainspring.errors import DeclarationError, TrainingError
from mainspring.models.adapters.nets.bodies import Mlp, WideAndDeep
from mainspring.models.adapters.nets.net import NetLearner
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import torch
from mainspring.training.adapters.distributed.checkpoint import STATE, Checkpoints
from mainspring.training.adapters.distributed.job import Job
from mainspring.training.adapters.distributed.launch import launch
from mainspring.training.adapters.distributed.modes import spread
from mainspring.training.adapters.distributed.nets import fit_on_processes
from mainspring.training.adapters.distributed.worker import train

LAST = SCHEDULE.epochs * 10


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(job(folder, "none"))
    return folder


@pytest.fixture(scope="module")
def spreads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every spread, uninterrupted and broken at step 11, by torchrun, in one pair of processes."""
    folder = tmp_path_factory.mktemp("spreads")
    for parallel in SPREADS:
        (folder / f"{parallel}-broken").mkdir()
        (folder / f"{parallel}-broken" / "raise").write_text("11")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, spread_jobs.__file__, str(folder)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    return folder


def weights(folder: Path, parallel: str) -> dict[str, Any]:
    net = beginning().net.double()
    assert Checkpoints(folder, job(folder, parallel).identity()).weights(net) == LAST
    return dict(net.state_dict())


def distance(some: dict[str, Any], others: dict[str, Any]) -> float:
    return max(float((some[name] - others[name]).abs().max()) for name in some)


@pytest.mark.parametrize("parallel", SPREADS)
def test_two_processes_reach_the_weights_of_one(alone: Path, spreads: Path, parallel: str) -> None:
    begun, single = dict(beginning().net.double().state_dict()), weights(alone, "none")
    assert distance(begun, single) > 0.1
    assert distance(weights(spreads / parallel, parallel), single) < 1e-6


@pytest.mark.parametrize("parallel", SPREADS)
def test_a_broken_run_goes_on_to_the_same_bits(spreads: Path, parallel: str) -> None:
    assert distance(weights(spreads / f"{parallel}-broken", parallel), weights(spreads / parallel, parallel)) == 0.0


def test_a_killed_worker_is_started_again_and_the_weights_are_the_same_bits(spreads: Path, tmp_path: Path) -> None:
    (tmp_path / "kill").write_text("15")
    launch(job(tmp_path, "ddp"), processes=2, restarts=1)
    log = (tmp_path / "processes.log").read_text()
    assert "SIGKILL" in log or "exitcode: -9" in log, log[-2_000:]
    assert distance(weights(tmp_path, "ddp"), weights(spreads / "ddp", "ddp")) == 0.0


def test_a_checkpoint_of_any_spread_is_gone_on_from_by_one_process(alone: Path, spreads: Path, tmp_path: Path) -> None:
    for parallel in SPREADS:
        broken = spreads / f"{parallel}-broken"
        source = min(path for path in broken.glob("step-*"))
        folder = tmp_path / parallel
        folder.mkdir()
        state = json.loads((source / STATE).read_text())
        (folder / source.name).mkdir()
        for file in source.iterdir():
            (folder / source.name / file.name).write_bytes(file.read_bytes())
        own = job(folder, "none")
        (folder / source.name / STATE).write_text(json.dumps({**state, "job": own.identity()}))
        train(own)
        assert distance(weights(folder, "none"), weights(alone, "none")) < 1e-6


def test_checkpoints_hold_nothing_but_tensors_and_text(spreads: Path) -> None:
    kinds = {path.suffix for path in spreads.rglob("step-*/*")}
    assert kinds == {".safetensors", ".json"}
    assert len(list((spreads / "fsdp").glob("step-*"))) == 2
    losses = [json.loads((spreads / one / f"step-{LAST:09d}" / STATE).read_text())["loss"] for one in SPREADS]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-9)


def test_half_precision_learns_nearly_the_same(alone: Path, spreads: Path) -> None:
    half = json.loads((spreads / "bf16" / f"step-{LAST:09d}" / STATE).read_text())["loss"]
    assert half == pytest.approx(json.loads((alone / f"step-{LAST:09d}" / STATE).read_text())["loss"], rel=0.1)


def test_another_jobs_checkpoints_are_refused(alone: Path) -> None:
    with pytest.raises(TrainingError, match="of another job"):
        train(job(alone, "none", seed=1))


def test_what_cannot_be_spread_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="Did you mean 'fsdp'"):
        job(tmp_path, "fsdpp")
    with pytest.raises(DeclarationError, match="'none' takes 1"):
        launch(job(tmp_path, "none"), processes=2)
    with pytest.raises(DeclarationError, match="module:function"):
        Job("nowhere:work", {}, str(tmp_path)).make()
    unsplit = replace(job(tmp_path, "none"), schedule=replace(SCHEDULE, batch=63), parallel="none")
    assert spread(work(str(tmp_path)), unsplit, torch.device("cpu")).data_parts == 1


@pytest.mark.long
def test_what_fails_in_the_processes_is_told(tmp_path: Path) -> None:
    odd = job(tmp_path, "ddp", schedule=replace(SCHEDULE, batch=63))
    with pytest.raises(TrainingError, match="Choose a multiple of 2"):
        launch(odd, processes=2, restarts=0)


def test_a_learner_fits_on_processes_and_predicts_as_from_one(tmp_path: Path) -> None:
    data = rows(640)
    spread_out = fit_on_processes(
        LEARNER, data, names=NAMES, categorical=["kind"], seed=3, precision="float64", folder=tmp_path, parallel="fsdp", processes=2
    )
    (place,) = tmp_path.iterdir()
    single = replace(Job.from_file(place / "job.json"), parallel="none", folder=str(tmp_path / "alone"))
    train(single)
    again = LEARNER.load(spread_out.to_artifacts(), NAMES)
    assert (again.predict(data.x) == spread_out.predict(data.x)).all()
    assert Checkpoints(Path(single.folder), single.identity()).weights(again.net.double()) == LAST
    assert spread_out.predict(data.x) == pytest.approx(replace(again, net=again.net.float()).predict(data.x), abs=1e-5)
    error = spread_out.predict(data.x)[:, 0] - data.y[:, 0]
    assert np.sqrt(np.mean(error**2)) < 0.95 * data.y[:, 0].std()


def test_nets_without_pairs_or_layers_enough_are_refused() -> None:
    from mainspring.training.adapters.distributed.modes import _pairs, _stage

    wide = NetLearner(WideAndDeep((8,)), (Task("regression"), Task("binary"))).prepare(rows(64), NAMES, ("kind",)).net
    with pytest.raises(DeclarationError, match="no two linear layers"):
        _pairs(wide, 2)
    with pytest.raises(DeclarationError, match="does not make 3 stages"):
        _stage(wide, 0, 3)
    deep = NetLearner(Mlp((6, 4, 4)), (Task("regression"), Task("binary"))).prepare(rows(64), NAMES, ("kind",)).net
    parts = [_stage(deep, rank, 3) for rank in range(3)]
    assert [name for part in parts for name in part.state_dict()] == list(deep.state_dict())
    assert all(part.state_dict() for part in parts)
