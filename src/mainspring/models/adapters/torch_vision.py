"""A small convolutional net over images, in the style of MobileNet and EfficientNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import DataError, RegistryError
from mainspring.models.adapters.torch_bodies import head
from mainspring.models.adapters.torch_fitting import Schedule, descend
from mainspring.models.adapters.torch_objectives import (
    Task,
    learn_tasks,
    mean_loss,
    predictions,
    raw_scores,
    targets,
    tasks_from_list,
    tasks_to_list,
)
from mainspring.models.adapters.torch_runtime import in_blocks, nn, repeatable, torch
from mainspring.models.adapters.torch_storing import read_body, read_weights, to_files

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
    """The shape of the net; ``width`` multiplies channels and ``depth`` repeats, together the compound scaling of EfficientNet."""

    stem: int = 16
    stages: tuple[Stage, ...] = STAGES
    last: int = 160
    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.1


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
        self, images: Images, y: Floats, *, weight: Floats | None, held_out: tuple[Images, Floats] | None, seed: int, threads: int
    ) -> ImagePredictor:
        """Fit to uint8 images of shape ``(n, h, w, c)`` and labels of shape ``(n,)``; one thread repeats to the bit.

        Raises:
            DataError: these are no such images.
            TrainingError: the labels do not suit the task, or the loss is not finite.
        """
        size = images.shape[1:]
        target = targets(y, weight)
        (task,) = learn_tasks((self.task,), target[:, :-1], target[:, -1])
        with repeatable(seed, threads):
            net = _build(self.shape, size[-1], task)
            fitted = ImagePredictor((size[0], size[1], size[2]), self.shape, task, net)
            x, labels = _images(images, fitted.size), torch.from_numpy(target)
            _learn_channels(net[0], images)
            held = None if held_out is None else (_images(held_out[0], fitted.size), torch.from_numpy(targets(held_out[1], None)))
            descend(
                net,
                lambda batch: mean_loss((task,), net(x[batch]), labels[batch]),
                len(x),
                self.schedule,
                None if held is None else lambda: _loss_of(fitted, *held),
            )
        net.eval()
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
            shape, (task,) = Cnn(**{**body["shape"], "stages": stages}), tasks_from_list(body["task"])
            net = _build(shape, size[-1], task)
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(f"net.json: it does not describe a net of this version ({error}). Train it again.") from error
        read_weights(net, artifacts)
        return ImagePredictor(size, shape, task, net)


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


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = channels * expand
        self.residual = stride == 1 and channels == out
        self.path = nn.Sequential(
            *(_convolution(channels, inner, 1) if expand > 1 else []),
            *_convolution(inner, inner, 3, stride, groups=inner),
            _Squeeze(inner, max(4, channels // 4)),
            *_convolution(inner, out, 1)[:-1],
        )

    def forward(self, x: Any) -> Any:
        return x + self.path(x) if self.residual else self.path(x)


def _convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(out), nn.SiLU()]


def _build(shape: Cnn, channels: int, task: Task) -> Any:
    stem = _scaled(shape.stem, shape.width)
    layers, at = [_Channels(channels), *_convolution(channels, stem, 3)], stem
    for stage in shape.stages:
        out = _scaled(stage.channels, shape.width)
        for repeat in range(max(1, round(stage.repeats * shape.depth))):
            layers.append(_InvertedResidual(at, out, stage.stride if repeat == 0 else 1, stage.expand))
            at = out
    last = _scaled(shape.last, shape.width)
    top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(shape.dropout), head(last, task.outputs)]
    return nn.Sequential(*layers, *_convolution(at, last, 1), *top)


def _scaled(channels: int, width: float) -> int:
    return max(8, int(channels * width + 4) // 8 * 8)


def _learn_channels(channels: Any, images: Images) -> None:
    channels.mean.copy_(torch.from_numpy(images.mean(axis=(0, 1, 2), dtype=np.float64)))
    channels.deviation.copy_(torch.from_numpy(np.maximum(images.std(axis=(0, 1, 2), dtype=np.float64), 1.0)))


def _images(images: Images, size: tuple[int, int, int]) -> Any:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != size:
        raise DataError(f"An image net got {images.dtype} of shape {images.shape}. Give uint8 of shape (n, {', '.join(map(str, size))}).")
    return torch.from_numpy(np.ascontiguousarray(images))


def _loss_of(fitted: ImagePredictor, x: Any, labels: Any) -> float:
    parts = zip(x.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    return float(sum(len(a) * mean_loss((fitted.task,), fitted.net(a), b).item() for a, b in parts) / len(x))
