"""The built-in networks and a user's own: torch modules with their weights and the data that goes with them."""

from __future__ import annotations

from tinyredux.nets.builtin import (
    FIRES,
    NETS,
    POOL_AFTER,
    WEIGHTS_FOLDER,
    Net,
    cifarnet,
    lenet,
    load_net,
    load_weights,
    names,
    pruning_of,
    resize,
    resolve,
    short_name,
    weights_file,
    with_data,
)
from tinyredux.nets.user import own_name

__all__ = [
    "FIRES",
    "NETS",
    "POOL_AFTER",
    "WEIGHTS_FOLDER",
    "Net",
    "cifarnet",
    "lenet",
    "load_net",
    "load_weights",
    "names",
    "own_name",
    "pruning_of",
    "resize",
    "resolve",
    "short_name",
    "weights_file",
    "with_data",
]
