"""Small networks as a user writes them, one factory each: tests name them by this file's path, or copy it."""

from __future__ import annotations

import torch
from torch import nn


def net(shape: tuple[int, int, int], *layers: nn.Module) -> nn.Module:
    """Returns the layers in a row, which say what they take."""
    made = nn.Sequential(*layers)
    made.input_shape = shape
    return made


def make(seed: int = 0) -> nn.Module:
    """Returns the smallest of use: 3x7x7 to 5."""
    torch.manual_seed(seed)
    return net((3, 7, 7), nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 3, 5))


def other() -> nn.Module:
    """Returns the same with other weights."""
    return make(1)


def labelled() -> nn.Module:
    """Returns one for images of 32x32 in ten classes."""
    torch.manual_seed(0)
    return net((3, 32, 32), nn.Conv2d(3, 4, 5, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 10))


def two() -> nn.Module:
    """Returns two convolutions for images of 32x32 in ten classes."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, stride=3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(384, 10)
    return net((3, 32, 32), *layers)


def wide() -> nn.Module:
    """Returns two convolutions in which every method has something to choose, for images of 32x32 in ten classes."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, stride=3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10)
    return net((3, 32, 32), *layers)


def tiny() -> nn.Module:
    """Returns one that pruning can cut, with batch norm and dropout, and other weights each time."""
    layers = nn.Conv2d(3, 12, 3, 2), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3, 2), nn.ReLU(), nn.Flatten()
    return net((3, 32, 32), *layers, nn.Dropout(0.2), nn.Linear(392, 10))


def words() -> nn.Module:
    """Returns one for sounds of 1x49x10 in six classes."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 8, (10, 4), 2, (5, 1)), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
    return net((1, 49, 10), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 6))


def motion() -> nn.Module:
    """Returns one for 128 moments of six channels, 6x128x1, in four classes."""
    torch.manual_seed(0)
    layers = nn.Conv2d(6, 8, (5, 1), 2, (2, 0)), nn.ReLU(), nn.Conv2d(8, 16, (5, 1), 2, (2, 0)), nn.ReLU(), nn.MaxPool2d((4, 1))
    return net((6, 128, 1), *layers, nn.Flatten(), nn.Linear(16 * 8, 4))


def odd() -> nn.Module:
    """Returns one with an operator that is not there."""
    return net((3, 32, 32), nn.Conv2d(3, 4, 5, 8), nn.GroupNorm(1, 4), nn.Flatten(), nn.Linear(4 * 16, 10))
