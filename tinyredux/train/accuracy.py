"""How many images a network gets right, in float by torch and in int8 by the exact evaluator, to the bit as on a board."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tinyredux import train
from tinyredux.datasets import Images, Split
from tinyredux.frontends import export
from tinyredux.int8 import evaluator, quantize


@dataclass(frozen=True)
class Accuracy:
    """Counts of right answers among `images`: float32 and int8."""

    images: int
    correct_float: int
    correct_int8: int

    @property
    def loss_points(self) -> float:
        """What int8 loses against float, in percentage points."""
        return 100 * (self.correct_float - self.correct_int8) / self.images


def evaluate(net: nn.Module, split: Split, calibration: Images) -> Accuracy:
    """Returns how many images of `split` the network gets right before and after quantisation.

    `calibration` (N, C, H, W) sets the int8 ranges and must not come from `split`. Raises ValueError without labels.
    """
    graph = quantize(export(net), calibration)
    return Accuracy(len(split.images), train.correct(net, split), evaluator.correct(graph, split))
