"""A small convolutional net over images, in the style of MobileNet and EfficientNet."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import DataError, RegistryError
from mainspring.models.adapters.nets.bodies import head
from mainspring.models.adapters.nets.fitting import Schedule, descend
from mainspring.models.adapters.nets.objectives import (
    Task,
    learn_tasks,
    mean_loss,
    predictions,
    raw_scores,
    targets,
    tasks_from_list,
    tasks_to_list,
)
from mainspring.models.adapters.nets.runtime import in_blocks, nn, repeatable, torch
from mainspring.models.adapters.nets.storing import read_body, read_net, to_files

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]
KIND = "image net"
AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Stage:
    """``repeats`` inverted residuals: to ``channels``, through ``expand`` times as many, the first with ``stride``."""

    channels: int
    repeats: int = 1
    stride: int = 1
    expand: int = 4


STAGES = (Stage(16, expand=1), Stage(24, 2, 2), Stage(40, 2, 2), Stage(80, 2, 2))


@dataclass(frozen=True, slots=True)
class Cnn:
    """The shape of the net; ``width`` multiplies channels and ``depth`` repeats, together the compound scaling of EfficientNet.

    ``left`` are the channels that pruning left inside each block and in the last layer, in order; empty while there are all.
    """

    stem: int = 16
    stages: tuple[Stage, ...] = STAGES
    last: int = 160
    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.1
    left: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ImagePredictor:
    """A fitted net over images of shape ``size`` (height, width, channels), with its channels' training mean and deviation."""

    size: tuple[int, int, int]
    shape: Cnn
    task: Task
    net: Any

    @property
    def outputs(self) -> int:
        """One number, or one per class."""
        return self.task.outputs

    def predict(self, images: Images) -> Floats:
        """Probabilities or values of shape ``(n,)`` or ``(n, classes)`` for uint8 images of shape ``(n, h, w, c)``.

        Raises:
            DataError: the images have another shape or dtype than those of training.
        """
        rows = _images(images, self.size)
        return predictions((self.task,), raw_scores((self.task,), in_blocks(self.net, rows)).numpy())

    def to_artifacts(self) -> dict[str, bytes]:
        """``net.safetensors`` and ``net.json``."""
        return to_files(KIND, {"size": list(self.size), "shape": asdict(self.shape), "task": tasks_to_list((self.task,))}, self.net)


@dataclass(frozen=True, slots=True)
class ImageLearner:
    """Fits a small net to images: depthwise separable convolutions, inverted residuals, squeeze and excite.

    Source: Howard et al., "MobileNets", 2017; Sandler et al., "MobileNetV2", 2018; Tan and Le, "EfficientNet", 2019.
    """

    shape: Cnn = field(default_factory=Cnn)
    task: Task = field(default_factory=lambda: Task("multiclass"))
    schedule: Schedule = field(default_factory=lambda: Schedule(batch=64))

    def fit(
        self, images: Images, y: Floats, *, weight: Floats | None, held_out: tuple[Images, Floats] | None, seed: int, threads: int,
        start: ImagePredictor | None = None,
    ) -> ImagePredictor:  # fmt: skip
        """Fit to uint8 images of shape ``(n, h, w, c)`` and labels of shape ``(n,)``; one thread repeats to the bit.

        With ``start`` its net goes on learning, whatever this learner's shape.

        Raises:
            DataError: these are no such images.
            TrainingError: the labels do not suit the task, or the loss is not finite.
        """
        x, target = _images(images, images.shape[1:] if start is None else start.size), targets(y, weight)
        with repeatable(seed, threads):
            fitted = self._begun(images, target) if start is None else replace(start, net=copy.deepcopy(start.net))
            labels = torch.from_numpy(target)
            held = None if held_out is None else (_images(held_out[0], fitted.size), torch.from_numpy(targets(held_out[1], None)))
            descend(
                fitted.net,
                lambda batch: mean_loss((fitted.task,), fitted.net(x[batch]), labels[batch]),
                len(x),
                self.schedule,
                None if held is None else lambda: _loss_of(fitted, *held),
            )
        fitted.net.eval()
        return fitted

    def load(self, artifacts: Mapping[str, bytes], size: tuple[int, int, int]) -> ImagePredictor:
        """The net that `ImagePredictor.to_artifacts` wrote, for images of ``size``.

        Raises:
            RegistryError: the files are no such net, were altered, or it was trained on images of another size.
        """
        body = read_body(KIND, artifacts)
        if body.get("size") != list(size):
            raise RegistryError(f"net.json: the net was trained on images of shape {body.get('size')}, asked for is {list(size)}.")
        try:
            stages = tuple(Stage(**one) for one in body["shape"]["stages"])
            left = tuple(body["shape"].get("left", ()))
            shape, (task,) = Cnn(**{**body["shape"], "stages": stages, "left": left}), tasks_from_list(body["task"])
            net, _ = read_net(partial(build_images, shape, size[-1], task), artifacts)
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(f"net.json: it does not describe a net of this version ({error}). Train it again.") from error
        return ImagePredictor(size, shape, task, net)

    def _begun(self, images: Images, target: Floats) -> ImagePredictor:
        height, width, channels = images.shape[1:]
        (task,) = learn_tasks((self.task,), target[:, :-1], target[:, -1])
        net = build_images(self.shape, channels, task)
        _learn_channels(net[0], images)
        return ImagePredictor((height, width, channels), self.shape, task, net)


class _Channels(nn.Module):
    """From bytes, channels last, to numbers of mean 0 and deviation 1, channels first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def forward(self, x: Any) -> Any:
        return ((x.to(self.mean.dtype) - self.mean) / self.deviation).permute(0, 3, 1, 2)


class _Squeeze(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.SiLU(), nn.Conv2d(inner, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Any) -> Any:
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """A block of MobileNetV2 with ``inner`` channels between ``channels`` and ``out``; without ``expand`` they are the ``channels``."""

    def __init__(self, channels: int, inner: int, out: int, stride: int, expand: bool) -> None:
        super().__init__()
        self.residual = stride == 1 and channels == out
        self.path = nn.Sequential(
            *(_convolution(channels, inner, 1) if expand else []),
            *_convolution(inner, inner, 3, stride, groups=inner),
            _Squeeze(inner, max(4, channels // 4)),
            *_convolution(inner, out, 1)[:-1],
        )

    def forward(self, x: Any) -> Any:
        """The images after the block."""
        return x + self.path(x) if self.residual else self.path(x)


def _convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(out), nn.SiLU()]


def build_images(shape: Cnn, channels: int, task: Task) -> Any:
    """The net as one row of layers, for images of so many channels."""
    stem, left = _scaled(shape.stem, shape.width), iter(shape.left)
    layers, at = [_Channels(channels), *_convolution(channels, stem, 3)], stem
    for stage in shape.stages:
        out = _scaled(stage.channels, shape.width)
        for repeat in range(max(1, round(stage.repeats * shape.depth))):
            inner = next(left, at * stage.expand)
            layers.append(InvertedResidual(at, inner, out, stage.stride if repeat == 0 else 1, stage.expand > 1))
            at = out
    last = next(left, _scaled(shape.last, shape.width))
    top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(shape.dropout), head(last, task.outputs)]
    return nn.Sequential(*layers, *_convolution(at, last, 1), *top)


def _scaled(channels: int, width: float) -> int:
    return max(8, int(channels * width + 4) // 8 * 8)


def _learn_channels(channels: Any, images: Images) -> None:
    channels.mean.copy_(torch.from_numpy(images.mean(axis=(0, 1, 2), dtype=np.float64)))
    channels.deviation.copy_(torch.from_numpy(np.maximum(images.std(axis=(0, 1, 2), dtype=np.float64), 1.0)))


def _images(images: Images, size: tuple[int, ...]) -> Any:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != size:
        raise DataError(f"An image net got {images.dtype} of shape {images.shape}. Give uint8 of shape (n, {', '.join(map(str, size))}).")
    return torch.from_numpy(np.ascontiguousarray(images))


def _loss_of(fitted: ImagePredictor, x: Any, labels: Any) -> float:
    parts = zip(x.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    return float(sum(len(a) * mean_loss((fitted.task,), fitted.net(a), b).item() for a, b in parts) / len(x))
