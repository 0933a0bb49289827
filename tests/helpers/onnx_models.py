"""Small torch networks as int8 ONNX files, as users make them: torch.onnx.export, then ONNX Runtime's quantize_static."""

from __future__ import annotations

import io
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from random_nets import RandomNet, Step
from torch import nn
from torch.nn import functional

onnxruntime.set_default_logger_severity(3)
OPSETS = (13, 14, 15, 16, 17, 18, 19, 20)
MORE = (
    "sigmoid", "tanh", "hardsigmoid", "hardswish", "leaky", "silu", "gate", "sub", "clip", "upsample", "pixels", "split", "slice",
    "deal", "affine", "elu", "squeeze", "mean",
)  # fmt: skip


def gated(images: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Returns a map times one value for each channel."""
    return images * gate


def halves(images: torch.Tensor) -> torch.Tensor:
    """Returns the second half of the channels, then the first."""
    first, second = torch.chunk(images, 2, 1)
    return torch.cat([second, first], 1)


def dealt(groups: int, images: torch.Tensor) -> torch.Tensor:
    """Returns channels dealt out, as ShuffleNet has it."""
    count, channels, height, width = images.shape
    return images.view(count, groups, channels // groups, height, width).transpose(1, 2).reshape(count, channels, height, width)


FUNCTIONS: dict[str, Any] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "hardsigmoid": functional.hardsigmoid, "hardswish": functional.hardswish,
    "leaky": partial(functional.leaky_relu, negative_slope=0.2), "silu": functional.silu, "elu": functional.elu,
    "clip": partial(torch.clamp, min=-1.0, max=1.0), "upsample": partial(functional.interpolate, scale_factor=2, mode="nearest"),
}  # fmt: skip


class Drawn(RandomNet):
    """A random network with what ONNX files hold beside convolutions, pools and sums; every other step is one of those."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, outliers=False)

    def _step(self, kind: str, values: list[torch.Tensor]) -> list[Step]:
        if len(values) == 1:  # what reads floats is not quantised
            kind = "conv"
        if len(values) == 1 or self.rng.random() < 0.5:
            return super()._step(kind, values)
        source, kind = len(values) - 1, self._pick(*MORE)
        channels, height, width = values[source].shape[1:]
        if kind == "upsample" and height * width * channels > 2000:
            kind = "slice"
        if kind in ("split", "deal") and channels % 2:
            kind = "sigmoid"
        if kind == "pixels" and channels % 4:
            kind = "leaky"
        match kind:
            case "gate":
                conv = self._layer(nn.Conv2d(channels, channels, 1))
                pool = self._layer(nn.AdaptiveAvgPool2d(1))
                steps: list[Step] = [(pool, source), (conv, source + 1), (torch.sigmoid, source + 2)]
                return [*steps, (gated, source, source + 3)]
            case "sub":
                conv = self._layer(nn.Conv2d(channels, channels, 1))
                return [(conv, source), (torch.sub, source, source + 1)]
            case "affine":
                return [(self._layer(nn.BatchNorm2d(channels)), source)]
            case "pixels":
                return [(partial(functional.pixel_shuffle, upscale_factor=2), source)]
            case "split":
                return [(halves, source)]
            case "deal":
                return [(partial(dealt, 2), source)]
            case "slice":
                top, left = int(height > 2), int(width > 3)
                return [(partial(cropped, (top, left, self._pick(1, 2))), source)]
            case "squeeze" | "mean":
                mean = (
                    self._layer(nn.AdaptiveAvgPool2d(1)) if kind == "squeeze" else partial(torch.mean, dim=(2, 3), keepdim=True)
                )
                conv = self._layer(nn.Conv2d(channels, channels, 1))
                return [(mean, source), (conv, source + 1), (gated, source, source + 2)]
        steps = [(self._layer(nn.Conv2d(channels, channels, 1)), source)]  # the quantiser leaves functions in a row as floats
        return [*steps, (FUNCTIONS[kind], source + 1)]


def cropped(how: tuple[int, int, int], images: torch.Tensor) -> torch.Tensor:
    """Returns rows and columns from some place on, every column or every other."""
    top, left, step = how
    return images[:, :, top:, left::step]


class Calibration(CalibrationDataReader):
    """Images one by one."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next image under the input's name."""
        image = next(self.images, None)
        return None if image is None else {"images": image[None]}


def exported(net: nn.Module, opset: int, dynamo: bool = False) -> bytes:
    """Returns the float ONNX file of a network."""
    stream, example = io.BytesIO(), (torch.zeros(1, *net.input_shape),)  # type: ignore[arg-type]
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), example, stream, input_names=["images"], opset_version=opset, dynamo=dynamo)  # type: ignore[arg-type]
    logging.disable(logging.NOTSET)
    return stream.getvalue()


def quantised(model: bytes, images: np.ndarray, path: Path, **options: Any) -> Path:
    """Writes the int8 file of a float one, calibrated by images (N, C, H, W)."""
    logging.disable(logging.WARNING)
    quantize_static(onnx.load_from_string(model), str(path), Calibration(images), **options)
    logging.disable(logging.NOTSET)
    return path


def drawn_file(seed: int, form: str, folder: Path) -> tuple[Path, Drawn]:
    """Writes the int8 file of a seed, "QDQ" or "QOperator", and returns its path and the network."""
    torch.manual_seed(seed)
    net, rng = Drawn(seed), np.random.default_rng(seed)
    images = rng.normal(size=(6, *net.input_shape)).astype(np.float32)
    types = (QuantType.QInt8, QuantType.QUInt8)
    path = folder / f"drawn{seed}{form}.onnx"
    options = {
        "quant_format": QuantFormat[form], "per_channel": bool(rng.random() < 0.5), "activation_type": types[seed % 2],
        "weight_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": bool(seed % 2 == 0 and rng.random() < 0.5)},
    }  # fmt: skip
    return quantised(exported(net, OPSETS[seed % len(OPSETS)]), images, path, **options), net
