"""How a network is found by its name, and its weights by the data that they were trained on.

A network is named by a key of NETS, whose weights are committed, by `path/to/file.py:factory`, which brings its own, by the
name of a pruned one, whose shapes are in the record beside its weights, or by `path/to/model.tflite` or `.onnx`, an int8 graph.
"""

import glob
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from tinyredux import datasets
from tinyredux.files import checked, expect, is_network_file, read_json, read_recorded, require
from tinyredux.frontends import door_of
from tinyredux.graph import Graph
from tinyredux.int8 import quant_of
from tinyredux.nets.builtin import NETS
from tinyredux.nets.user import WEIGHTS_FOLDER, made_by, own_name, weights_file

DATA = tuple(datasets.SHAPES)  # what networks are trained on


def names() -> list[str]:
    """Returns the names of the built-in networks, then of the pruned ones whose weights are committed."""
    found = {path.name.split(".")[0] for data in DATA for path in WEIGHTS_FOLDER.glob(f"*.{data}.json")}
    return [*NETS, *sorted(name for name in found - NETS.keys() if pruning_of(name, DATA))]


def resolve(name: str, data: str | None = None) -> nn.Module:
    """Returns a fresh network: built-in or pruned and untrained, or what the user's factory makes, with the weights it holds.

    `data` says of which pruned network, where one name was pruned on several sets. Raises ValueError for an unknown name, a
    file or function that is not there, and anything but a module that carries `input_shape = (C, H, W)`.
    """
    expect(str, name, "the network", "such as 'lenet' or 'path/to/file.py:factory'")
    if name in NETS:
        return NETS[name]()
    pruning = pruning_of(name, (data,) if data else (*DATA, *own_data(name)))
    if pruning is not None:
        net = resolve(pruning["base"])
        resize(net, {key: torch.zeros(shape) for key, shape in pruning["shapes"].items()})
        return net
    fixed = f"{name} holds int8 weights, which are measured as they are"
    require(not is_network_file(name), f"{fixed}; to train or convert a network give path/to/file.py:factory")
    file, _, factory = name.rpartition(":")
    known = ", ".join(NETS)
    kinds = "path/to/file.py:factory, model.tflite or model.onnx"
    require(file.endswith(".py"), f"unknown network {name!r}; expected one of {known}, {kinds}")
    return made_by(Path(file), factory)


def pruning_of(name: str, data: tuple[str, ...]) -> dict[str, Any] | None:
    """Returns how a pruned network was made, `base` and `shapes` among it, from the first record found; None for others."""
    records = [path.with_suffix(".json") for path in (weights_file(name, one) for one in data) if path]
    record = next((record for record in records if record.is_file()), None)
    found = read_json(record, "record of weights").get("pruning") if record else None
    if found is None:
        return None
    for key, kind in (("base", str), ("shapes", dict[str, list[int]])):
        checked(kind, found.get(key) if isinstance(found, dict) else None, f"{record}, pruning.{key}", "prune the network again")
    return dict(found)


def own_data(name: str) -> list[str]:
    """Returns what the users' own data is called that a network has weights for in the cache, and whatever else there is."""
    files = glob.glob(f"{glob.escape(own_name(name))}.*.safetensors", root_dir=datasets.cache_folder() / "weights")
    return sorted(file.split(".")[-2] for file in files)


def resize(net: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Puts values in the place of parameters and buffers, by name, and sets the sizes that layers state accordingly."""
    for name, value in values.items():
        path, _, key = name.rpartition(".")
        layer = net.get_submodule(path)
        old = getattr(layer, key)
        setattr(layer, key, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            outputs, inputs = layer.weight.shape[:2]
            if 1 < layer.groups == layer.in_channels:
                layer.groups = outputs // (layer.out_channels // layer.groups)
            layer.in_channels, layer.out_channels = inputs * layer.groups, outputs
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = layer.weight.shape
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.running_mean is not None:
            layer.num_features = len(layer.running_mean)


def load_net(name: str, data: str = "cifar10") -> nn.Module:
    """Returns a network ready for inference, with the weights that were trained on `data`.

    A user's network has its own where `train` left none for this very data. For random images, and own data that it was not
    trained on, a built-in one has the CIFAR-10 weights, else those of the next set that has some; for random images untrained
    weights, always the same, where there are none. Raises MissingDataError where a built-in network has no such weights,
    ValueError for weights of another shape.
    """
    expect(str, name, "the network", "such as 'lenet' or 'path/to/file.py:factory'")
    every = (data, *DATA, *own_data(name))
    users = name not in NETS and pruning_of(name, every) is None
    trained = (data,) if users or data in DATA else every
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = resolve(name, next((one for one in trained if pruning_of(name, (one,))), None))
    if path := next(filter(None, (weights_file(name, one) for one in trained)), None):
        load_weights(net, path)
    elif data != "random" and not users:
        fitting = [one for one in DATA if datasets.SHAPES[one] in (None, getattr(net, "input_shape", None))] or DATA
        fitting = [data] if data in DATA else fitting
        raise datasets.MissingDataError(
            f"{name} has no weights trained on {' or '.join(fitting)}; make them by "
            f"`tinyredux train {name} --data {fitting[0]}`, or use `--data random` for memory and time without accuracy"
        )
    return net.eval()


def load_weights(net: nn.Module, path: Path) -> None:
    """Copies the weights of a safetensors file into `net`. Raises ValueError where names, shapes or the sha256 differ."""
    try:
        net.load_state_dict(safetensors.torch.load(read_recorded(path)))
    except (RuntimeError, safetensors.SafetensorError) as failure:
        raise ValueError(f"{path} does not fit the network: {failure}; train it again") from failure


def file_with_data(name: str, data: str | None = None, seed: int = 0) -> tuple[datasets.Dataset, Graph]:
    """Returns the data called `data` in the input shape and units of path/to/model.tflite or .onnx, and the file's int8 graph.

    Raises ValueError for a file that is not there, damaged, or with operators that no kernel computes.
    """
    graph = door_of(name).load(name)
    (height, width, channels), quant = graph.input.shape, quant_of(graph.input)
    low, high = (quant.scale[0] * (end - quant.zero_point) for end in (-128, 127))
    return datasets.in_units(datasets.load(data, (channels, height, width), seed), low, high), graph


def with_data(name: str, data: str | None = None, seed: int = 0) -> tuple[datasets.Dataset, nn.Module]:
    """Returns the data called `data` in the network's input shape, and the network with weights trained on it."""
    images = datasets.load(data, resolve(name).input_shape, seed)  # type: ignore[arg-type]
    return images, load_net(name, images.name)
