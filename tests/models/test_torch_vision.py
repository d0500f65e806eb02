from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mainspring.errors import DataError, RegistryError
from mainspring.models.adapters.nets.fitting import Schedule
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.adapters.nets.vision import Cnn, ImageLearner, ImagePredictor, Stage

SMALL = Cnn(stem=8, stages=(Stage(8, expand=1), Stage(16, 2, 2)), last=32)
LEARNER = ImageLearner(SMALL, schedule=Schedule(epochs=5, batch=40, learning_rate=1e-2))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(n: int, seed: int) -> tuple[Any, Any]:
    """Bars on noise, at any place: 0 upright, 1 lying, 2 a square of the same area."""
    rng = np.random.default_rng(seed)
    pixels, kinds = rng.integers(0, 90, (n, 20, 20, 3)).astype(np.uint8), rng.integers(0, 3, n)
    for image, kind in zip(pixels, kinds, strict=True):
        height, width = ((8, 2), (2, 8), (4, 4))[kind]
        top, left = rng.integers(0, 12, 2)
        image[top : top + height, left : left + width] = 200
    return pixels, kinds.astype(float)


def fit(seed: int = 0) -> ImagePredictor:
    x, y = images(320, 1)
    return LEARNER.fit(x, y, weight=None, held_out=images(100, 2), seed=seed, threads=1)


@pytest.fixture(scope="module")
def net() -> ImagePredictor:
    return fit()


def test_shapes_are_told_apart_wherever_they_are(net: ImagePredictor) -> None:
    x, y = images(300, 3)
    shares = net.predict(x)
    assert shares.shape == (300, 3)
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert np.mean(shares.argmax(axis=1) == y) > 0.9


def test_an_answer_does_not_hang_on_the_others_of_a_batch(net: ImagePredictor) -> None:
    x, _ = images(20, 3)
    assert net.predict(x[:1])[0] == pytest.approx(net.predict(x)[0], abs=1e-6)


def test_the_same_fit_gives_the_same_bits(net: ImagePredictor) -> None:
    assert fit().to_artifacts() == net.to_artifacts()
    assert fit(seed=1).to_artifacts() != net.to_artifacts()


def test_width_and_depth_scale_the_net_and_other_tasks_fit() -> None:
    x, y = images(64, 1)
    short = Schedule(epochs=1, batch=32)
    sizes = []
    for shape in (SMALL, Cnn(8, SMALL.stages, 32, width=2.0), Cnn(8, SMALL.stages, 32, depth=2.0)):
        fitted = ImageLearner(shape, Task("binary"), short).fit(x, (y == 2) * 1.0, weight=np.ones(64), held_out=None, seed=0, threads=1)
        sizes.append(sum(one.numel() for one in fitted.net.parameters()))
        assert fitted.predict(x).shape == (64,)
    assert sizes[1] > 2 * sizes[0]
    assert sizes[2] > 1.4 * sizes[0]


def test_files_come_back_as_the_same_net_and_others_are_refused(net: ImagePredictor) -> None:
    files, (x, _) = net.to_artifacts(), images(30, 3)
    assert LEARNER.load(files, (20, 20, 3)).predict(x).tolist() == net.predict(x).tolist()
    with pytest.raises(RegistryError, match="images of shape"):
        LEARNER.load(files, (20, 20, 1))
    with pytest.raises(RegistryError, match="do not belong together"):
        LEARNER.load({**files, "net.safetensors": files["net.safetensors"] + b"0"}, (20, 20, 3))


def test_other_images_are_refused(net: ImagePredictor) -> None:
    x, _ = images(2, 3)
    for wrong in (x.astype(np.float32), x[:, :10], x[0]):
        with pytest.raises(DataError, match="Give uint8"):
            net.predict(wrong)
