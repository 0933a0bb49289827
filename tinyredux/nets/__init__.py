"""The built-in networks and a user's own: torch modules with their weights and the data that goes with them."""

from __future__ import annotations

from tinyredux.nets.builtin import (
    FIRES,
    NETS,
    POOL_AFTER,
    WEIGHTS_FOLDER,
    Net,
    alexnet,
    cifarnet,
    cifarnet_quick,
    lenet,
    load_net,
    load_weights,
    names,
    pruning_of,
    resize,
    resolve,
    short_name,
    squeezenet,
    squeezenet_bypass,
    weights_file,
    with_data,
    zfnet,
)
from tinyredux.nets.user import own_name

__all__ = [
    "FIRES", "NETS", "POOL_AFTER", "WEIGHTS_FOLDER", "Net", "alexnet", "cifarnet", "cifarnet_quick", "lenet", "load_net",
    "load_weights", "names", "own_name", "pruning_of", "resize", "resolve", "short_name", "squeezenet", "squeezenet_bypass",
    "weights_file", "with_data", "zfnet",
]  # fmt: skip
