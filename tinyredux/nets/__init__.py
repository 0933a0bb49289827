"""The built-in networks and a user's own: torch modules with their weights and the data that goes with them.

`builtin` and `mobile` define the networks, `loading` finds one by name with its weights, `user` runs a user's file.
"""

from tinyredux.files import short_name
from tinyredux.nets.builtin import FIRES, NETS, POOL_AFTER, Net, alexnet, cifarnet, cifarnet_quick, lenet, squeezenet, zfnet
from tinyredux.nets.loading import file_with_data, load_net, load_weights, names, pruning_of, resize, resolve, with_data
from tinyredux.nets.user import WEIGHTS_FOLDER, own_name, weights_file

__all__ = [
    "FIRES", "NETS", "POOL_AFTER", "WEIGHTS_FOLDER", "Net", "alexnet", "cifarnet", "cifarnet_quick", "file_with_data", "lenet",
    "load_net", "load_weights", "names", "own_name", "pruning_of", "resize", "resolve", "short_name", "squeezenet",
    "weights_file", "with_data", "zfnet",
]  # fmt: skip
