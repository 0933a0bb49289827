"""How many images a network gets right, in float by torch and in int8 by the interpreter, to the bit as on a board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from tinyredux import interpret, train
from tinyredux.datasets import Images, Split, check_labels
from tinyredux.export import export
from tinyredux.graph import Graph
from tinyredux.passes.quantize import quantize

Progress = Callable[[str], None]
CHUNK = 250  # images between two lines of progress


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


def evaluate(net: nn.Module, split: Split, calibration: Images, progress: Progress | None = None) -> Accuracy:
    """Returns how many images of `split` the network gets right before and after quantisation.

    `calibration` (N, C, H, W) sets the int8 ranges and must not come from `split`. Raises ValueError without labels.
    """
    graph = quantize(export(net), calibration)
    return Accuracy(len(split.images), train.correct(net, split), correct_int8(graph, split, progress))


def correct_int8(graph: Graph, split: Split, progress: Progress | None = None) -> int:
    """Returns how many images of `split` an int8 graph gets right; of equal outputs the first one counts."""
    if split.labels is None:
        raise ValueError("cannot count correct answers: the data has no labels")
    check_labels(split, graph.output.elements)
    right = 0
    for i in range(0, len(split.images), CHUNK):
        images = interpret.quantize_input(graph, split.images[i : i + CHUNK])
        outputs = interpret.run(graph, images).reshape(len(images), -1)
        right += int(np.count_nonzero(outputs.argmax(axis=1) == split.labels[i : i + CHUNK]))
        if progress:
            progress(f"int8: {i + len(images)} of {len(split.images)} images, {right} right")
    return right
