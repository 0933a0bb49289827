"""The bodies of networks made of depthwise convolutions: MobileNetV2, an MCUNet-like one for 80x80 images, DS-CNN."""

from collections.abc import Sequence

import torch
from torch import nn

Block = tuple[int, int, int, int]  # expansion, output channels, kernel, stride

MOBILENET_V2 = (  # expansion, channels, repeats, stride of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
VWW_BLOCKS: tuple[Block, ...] = (
    (1, 8, 3, 1), (6, 16, 5, 2), (4, 16, 3, 1), (4, 16, 5, 1), (5, 24, 5, 2), (5, 24, 3, 1), (6, 24, 5, 1),
    (5, 40, 5, 2), (5, 40, 5, 1), (5, 48, 3, 1), (4, 48, 5, 1), (6, 96, 5, 2), (4, 96, 5, 1), (4, 128, 3, 1),
)  # fmt: skip


def convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: type[nn.Module] | None = nn.ReLU6
) -> nn.Sequential:
    """Returns a convolution that keeps the size at stride 1, with batch norm and, where there is one, an activation.

    Its weights start out such that values keep their spread through many layers even before training.
    """
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([activation()] if activation else []))


class InvertedBottleneck(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; the input is added where shapes allow.

    Source: Sandler et al., MobileNetV2, arXiv 1801.04381, section 3.3.
    """

    def __init__(self, inputs: int, block: Block) -> None:
        super().__init__()
        expansion, outputs, kernel, stride = block
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *([convolution(inputs, hidden)] if expansion > 1 else []),
            convolution(hidden, hidden, kernel, stride, groups=hidden),
            convolution(hidden, outputs, activation=None),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Returns (N, outputs, H / stride, W / stride) for maps (N, inputs, H, W)."""
        narrow: torch.Tensor = self.body(maps)
        return maps + narrow if self.adds else narrow


def bottlenecks(stem: nn.Module, channels: int, blocks: Sequence[Block], features: int, classes: int) -> nn.Sequential:
    """Returns a stem that writes `channels`, inverted bottlenecks, a 1x1 convolution (features 0: none), mean and classes."""
    layers: list[nn.Module] = [stem]
    for block in blocks:
        layers.append(InvertedBottleneck(channels, block))
        channels = block[1]
    if features:
        layers.append(convolution(channels, features))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features or channels, classes))


def mobilenet_v2(width: float, classes: int, early_stride: int = 2) -> nn.Sequential:
    """Returns MobileNetV2 with int(width * channels) channels everywhere; `early_stride` 1 halves the map two times less.

    Source: arXiv 1801.04381, table 2.
    """
    blocks: list[Block] = []
    for stage, (expansion, channels, repeats, stride) in enumerate(MOBILENET_V2):
        first = early_stride if stage == 1 else stride
        blocks += [(expansion, int(width * channels), 3, first if i == 0 else 1) for i in range(repeats)]
    stem = int(width * 32)
    return bottlenecks(convolution(3, stem, 3, early_stride), stem, blocks, int(width * 1280), classes)


def ds_cnn(channels: int = 64, classes: int = 12) -> nn.Sequential:
    """Returns the keyword network DS-CNN for 49 frames of 10 coefficients: a 10x4 convolution, four separable ones.

    Source: Zhang et al., Hello Edge, arXiv 1711.07128, section 3; small, with the 64 channels of MLPerf Tiny. The paper's large
    one has 276 channels, and other strides.
    """
    stem = nn.Sequential(nn.Conv2d(1, channels, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(channels), nn.ReLU())
    pairs = [
        nn.Sequential(
            convolution(channels, channels, 3, groups=channels, activation=nn.ReLU),
            convolution(channels, channels, activation=nn.ReLU),
        )
        for _ in range(4)
    ]
    return nn.Sequential(stem, *pairs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
