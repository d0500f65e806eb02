from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mainspring.errors import DeclarationError, RegistryError, TrainingError
from mainspring.models.adapters.nets.fitting import Schedule
from mainspring.models.adapters.nets.multitask import Mmoe
from mainspring.models.adapters.nets.net import NetLearner, NetPredictor
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.pruning import IMAGE_RATE, pruned_images
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.adapters.nets.vision import Cnn, ImageLearner, ImagePredictor, Stage
from mainspring.models.learners import learner
from mainspring.models.protocol import Rows
from mainspring.models.pruning import Prune, prune
from mainspring.spec import Net

NAMES = tuple(f"p{i}" for i in range(64))
PIXELS, DIGITS = load_digits(return_X_y=True)
ORDER = np.random.default_rng(0).permutation(len(PIXELS))
X, Y = PIXELS[ORDER].astype(np.float64), DIGITS[ORDER].astype(np.float64)
TRAIN, TEST = slice(0, 1_300), slice(1_300, None)
IMAGES = (X.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
MLP = Net(objective="multiclass", classes=10, hidden=(96, 64), epochs=12, batch=64)
WIDE = Net(objective="multiclass", classes=10, shape="wide_and_deep", hidden=(96, 64), epochs=12, batch=64, dropout=0.1)
SHAPE = Cnn(stem=8, stages=(Stage(8, expand=1), Stage(16, 2, 2), Stage(24)), last=48)
CNN = ImageLearner(SHAPE, schedule=Schedule(epochs=8, batch=64, learning_rate=1e-2))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fit(spec: Net) -> NetPredictor:
    """Digits, of which two columns are codes."""
    fitted = learner(*spec.learner).fit(Rows(X[TRAIN], Y[TRAIN]), names=NAMES, categorical=("p3",), held_out=None, seed=0, threads=1)
    assert isinstance(fitted, NetPredictor)
    return fitted


@pytest.fixture(scope="module", params=[MLP, WIDE], ids=["mlp", "wide and deep"])
def net(request: pytest.FixtureRequest) -> tuple[Net, NetPredictor]:
    return request.param, fit(request.param)


@pytest.fixture(scope="module")
def images() -> ImagePredictor:
    return CNN.fit(IMAGES[TRAIN], Y[TRAIN], weight=None, held_out=None, seed=0, threads=1)


def pruned(spec: Net, predictor: NetPredictor, step: Prune, **changes: Any) -> tuple[NetPredictor, dict[str, Any]]:
    made, settings = prune("net", predictor, spec.learner[1], step, Rows(X[TRAIN], Y[TRAIN]), ("p3",), **changes)
    assert isinstance(made, NetPredictor)
    return made, settings


def right(predictor: Any, x: Any) -> float:
    return float(np.mean(predictor.predict(x[TEST]).argmax(axis=1) == Y[TEST]))


def weights_of(net: Any) -> list[Any]:
    return [one.weight.detach() for one in net.modules() if isinstance(one, torch.nn.Linear | torch.nn.Conv2d)]


def test_half_of_the_neurons_gone_leaves_a_smaller_net_that_is_as_good(net: tuple[Net, NetPredictor]) -> None:
    spec, whole = net
    made, settings = pruned(spec, whole, Prune(0.5, structured=True))
    assert settings["hidden"] == [48, 32] == list(made.body.hidden)  # type: ignore[attr-defined]
    assert right(made, X) > right(whole, X) - 0.02
    assert len(made.to_artifacts()["net.safetensors"]) < 0.6 * len(whole.to_artifacts()["net.safetensors"])
    back = learner("net", settings).load(made.to_artifacts(), NAMES)
    assert back.predict(X[TEST]).tolist() == made.predict(X[TEST]).tolist()
    assert made.contributions(X[:3]).shape == (3, 10, 65)


def test_half_of_the_weights_at_zero_leaves_smaller_files(net: tuple[Net, NetPredictor]) -> None:
    spec, whole = net
    made, settings = pruned(spec, whole, Prune(0.5))
    flat = torch.cat([one.flatten() for one in weights_of(made.net)])
    assert (flat == 0).double().mean().item() == pytest.approx(0.5, abs=0.001)
    assert settings["hidden"] == [96, 64]
    assert right(made, X) > right(whole, X) - 0.02
    assert len(made.to_artifacts()["net.safetensors"]) < 0.65 * len(whole.to_artifacts()["net.safetensors"])
    back = learner("net", settings).load(made.to_artifacts(), NAMES)
    assert back.predict(X[TEST]).tolist() == made.predict(X[TEST]).tolist()


def test_the_neurons_that_go_are_those_that_nothing_reads(net: tuple[Net, NetPredictor]) -> None:
    spec, fitted = net
    whole = replace(fitted, net=type(fitted.net)(*fitted.net))
    deep = [one for name, one in whole.net.named_modules() if isinstance(one, torch.nn.Linear) and name != "1.wide"]
    before = [one.weight.detach().clone() for one in deep]
    with torch.no_grad():
        for reader in deep[1:]:
            reader.weight[:, ::2] = 0.0
    left, _ = pruned(spec, whole, Prune(0.5, structured=True, rounds=1, epochs=0))
    assert left.predict(X[TEST]) == pytest.approx(whole.predict(X[TEST]), abs=1e-5)
    with torch.no_grad():
        for one, weight in zip(deep, before, strict=True):
            one.weight.copy_(weight)


def test_channels_gone_leave_a_smaller_net_that_is_as_good(images: ImagePredictor) -> None:
    made = pruned_images(images, CNN, Prune(0.5, structured=True, rounds=2, epochs=4), IMAGES[TRAIN], Y[TRAIN])
    assert made.shape.left == (8, 16, 32, 32, 24)
    assert right(made, IMAGES) > right(images, IMAGES) - 0.03
    assert len(made.to_artifacts()["net.safetensors"]) < 0.7 * len(images.to_artifacts()["net.safetensors"])
    back = ImageLearner().load(made.to_artifacts(), (8, 8, 1))
    assert back.predict(IMAGES[TEST]).tolist() == made.predict(IMAGES[TEST]).tolist()


def test_weights_of_an_image_net_at_zero_stay_so_while_it_learns_on(images: ImagePredictor) -> None:
    made = pruned_images(images, CNN, Prune(0.5, rounds=2, epochs=2), IMAGES[TRAIN], Y[TRAIN])
    flat = torch.cat([one.flatten() for one in weights_of(made.net)])
    assert (flat == 0).double().mean().item() == pytest.approx(0.5, abs=0.001)
    assert right(made, IMAGES) > right(images, IMAGES) - 0.03
    assert len(made.to_artifacts()["net.safetensors"]) < 0.8 * len(images.to_artifacts()["net.safetensors"])


def test_what_is_left_of_an_image_net_moves_at_a_tenth_of_the_rate(images: ImagePredictor) -> None:
    """The step of AdamW is as large as its rate, whatever the gradient."""
    fast = replace(CNN, schedule=replace(CNN.schedule, learning_rate=10 * CNN.schedule.learning_rate))
    made = [pruned_images(images, learner, Prune(0.2, rounds=1, epochs=1), IMAGES[TRAIN], Y[TRAIN]) for learner in (CNN, fast)]
    first = images.net[1].weight
    gentle, whole = ((one.net[1].weight - first)[one.net[1].weight != 0].abs().mean().item() for one in made)
    assert 0 < gentle < 0.4 * whole
    assert gentle < IMAGE_RATE * CNN.schedule.learning_rate * (1_300 // 64 + 1)


def test_the_channels_that_go_are_those_that_nothing_reads(images: ImagePredictor) -> None:
    whole = ImageLearner().load(images.to_artifacts(), (8, 8, 1))
    with torch.no_grad():
        for block in (one for one in whole.net if hasattr(one, "path") and len(one.path) == 9):
            block.path[6].gate[1].weight[:, ::2] = 0.0
            block.path[7].weight[:, ::2] = 0.0
        whole.net[-1].weight[:, ::2] = 0.0
    left = pruned_images(whole, CNN, Prune(0.5, structured=True, rounds=1, epochs=0), IMAGES[TRAIN], Y[TRAIN])
    assert left.predict(IMAGES[TEST]) == pytest.approx(whole.predict(IMAGES[TEST]), abs=1e-4)


@pytest.mark.parametrize("structured", [False, True])
def test_the_same_pruning_gives_the_same_bits_and_leaves_the_original(structured: bool) -> None:
    whole = fit(MLP)
    before, said = whole.to_artifacts(), []
    step = Prune(0.5, structured, rounds=2, epochs=1)
    first, second = (pruned(MLP, whole, step, progress=lambda *one: said.append(one))[0] for _ in range(2))
    assert first.to_artifacts() == second.to_artifacts()
    assert whole.to_artifacts() == before
    assert said[:3] == [(0, 2), (1, 2), (2, 2)]


def test_packed_weights_that_were_altered_are_refused() -> None:
    made, settings = pruned(MLP, fit(MLP), Prune(0.8, rounds=1, epochs=0))
    files = made.to_artifacts()
    for altered in (files["net.safetensors"][:-4], files["net.safetensors"].replace(b":kept", b":kopt")):
        with pytest.raises(RegistryError, match="do not belong together"):
            learner("net", settings).load({**files, "net.safetensors": altered}, NAMES)


def test_the_share_rises_fast_then_slowly() -> None:
    shares = Prune(0.8, rounds=4).shares
    assert shares[-1] == pytest.approx(0.8)
    assert np.all(np.diff([0.0, *shares]) > 0)
    assert np.all(np.diff(np.diff([0.0, *shares])) < 0)


def test_what_cannot_be_pruned_is_named() -> None:
    rows = Rows(X[:100], Y[:100])
    mixture = NetLearner(Mmoe(), (Task("multiclass"),), Schedule(epochs=1))
    short = {"names": NAMES, "categorical": (), "held_out": None, "seed": 0, "threads": 1}
    with pytest.raises(TrainingError, match="Prune an Mlp or WideAndDeep"):
        pruned(MLP, mixture.fit(rows, **short), Prune())  # type: ignore[arg-type]
    flat = replace(MLP, hidden=(), epochs=1)
    with pytest.raises(TrainingError, match="with hidden layers"):
        pruned(flat, learner(*flat.learner).fit(rows, **short), Prune())  # type: ignore[arg-type]
    for wrong in ({"share": 0.0}, {"share": 1.0}, {"rounds": 0}, {"epochs": -1}):
        with pytest.raises(DeclarationError, match="Give a share between 0 and 1"):
            Prune(**wrong)  # type: ignore[arg-type]
