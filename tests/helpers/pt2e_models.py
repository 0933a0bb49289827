"""Small torch networks quantised by PT2E: torch.export, then torchao's prepare and convert with the quantiser of XNNPACK."""

from __future__ import annotations

import warnings

import torch
from onnx_models import Drawn
from random_nets import Step
from torch import fx, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

UNTOUCHED = ("BatchNorm2d", "sub", "padding=same")  # what it leaves in floating point


def images_of(net: nn.Module, count: int, seed: int) -> torch.Tensor:
    """Returns random images (count, C, H, W) for a network."""
    return torch.randn(count, *net.input_shape, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def converted(net: nn.Module, images: torch.Tensor, per_channel: bool = True) -> fx.GraphModule:
    """Returns a network quantised by PT2E, calibrated by images."""
    module = torch.export.export(net.eval(), (images[:1],)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantiser = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=per_channel))
        module = prepare_pt2e(module, quantiser)
        for image in images:
            module(image[None])
        return convert_pt2e(module)


class Chain(Drawn):
    """A random network of what the quantiser of XNNPACK quantises: a convolution behind every step, no padded averages, which
    are rounded twice here."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, padded_averages=False)

    def _step(self, kind: str, values: list[torch.Tensor]) -> list[Step]:
        steps = super()._step(kind, values)
        while any(word in str(steps) for word in UNTOUCHED):
            steps = super()._step("conv", values)
        found = [*values]
        for function, *sources in steps:
            found.append(function(*(found[source] for source in sources)))
        channels = found[-1].shape[1]
        return [*steps, (self._layer(nn.Conv2d(channels, channels, 1)), len(found) - 1)]
