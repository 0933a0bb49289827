"""Fine-tuning with TREC: from the exact network's weights, with the layers of a table replaced."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinyredux import nets, train
from tinyredux.datasets import Dataset, Images, MissingDataError
from tinyredux.files import checked, read_json
from tinyredux.train.loop import Recipe, teacher_of
from tinyredux.trec.layer import Layer, Settings, convert

Table = Mapping[str, Settings]
PCA_IMAGES = 256
LEAST_OUTPUTS, BITS = 64, 4  # of a network without a table: with fewer outputs the hash costs what it saves

TUNE = Recipe(epochs=12, peak_rate=0.05, warmup_share=0.1, average=0.998)
SYNTHETIC = Recipe(epochs=3, batch=64, peak_rate=0.02, warmup_share=0.1)


def recipe_for(name: str, data: str, epochs: int | None = None, seed: int | None = None, file: Path | None = None) -> Recipe:
    """Returns the recipe of fine-tuning, with `epochs` and `seed` replaced where they are given.

    It is that of `file`, else that of the network's committed TREC weights, else `TUNE`; a shorter one for the synthetic set.
    Raises ValueError for a file whose recipe is none.
    """
    content = _content(name, file)
    where = f"{file}, recipe of training"
    recipe = checked(Recipe, content["recipe"], where) if "recipe" in content else TUNE
    return train.given(SYNTHETIC if data == "synthetic" and file is None else recipe, epochs, seed)


def has_recipe(file: Path) -> bool:
    """Returns whether a table of layers brings a recipe, which is then taken as it is."""
    return "recipe" in _content("", file)


def table_for(name: str, net: nn.Module, file: Path | None = None) -> dict[str, Settings]:
    """Returns the layers to replace: those of `file`, else of the committed TREC weights, else every wide convolution.

    `file` holds {module path: {"sub_length": L, "hash_bits": H, "hash": ..., "threshold": ...}}, by itself or as "table"
    beside a "recipe", as the records of weights do. Without a table, blocks are one tap of the window long. Raises ValueError
    for a file that is no such table, and where no layer is wide enough.
    """
    content = _content(name, file)
    if file is not None or content:
        if not content:
            raise ValueError(f"{file} names no layer; expected {{path: {{sub_length, hash_bits}}}}")
        return from_json(content.get("table", content), str(file or name))
    table = {
        path: Settings(part.in_channels, BITS)
        for path, part in net.named_modules()
        if isinstance(part, nn.Conv2d) and part.groups == 1 and part.out_channels >= LEAST_OUTPUTS and part.in_channels > 3
    }
    if not table:
        raise ValueError(f"{name} has no convolution of {LEAST_OUTPUTS} or more outputs for TREC; name layers in a file")
    return table


def _content(name: str, file: Path | None) -> dict[str, Any]:
    """Returns what `file` holds, else the record of the TREC weights that come with the library, {} where a network has none."""
    path = file or nets.WEIGHTS_FOLDER / f"{name}.trec.cifar10.json"
    return read_json(path, "table of TREC layers") if file or path.is_file() else {}


def from_json(table: object, where: str = "table of TREC layers") -> dict[str, Settings]:
    """Returns the table that a record or a file holds. Raises ValueError that names the layer and the field that are wrong."""
    return checked(dict[str, Settings], table, where, "expected {path of the layer: {sub_length, hash_bits, hash, threshold}}")


def to_json(table: Table) -> dict[str, dict[str, int | str]]:
    """Returns a table as a record or a file holds it: `outputs` where it is not all of them."""
    return {path: {key: value for key, value in asdict(one).items() if key != "outputs" or value} for path, one in table.items()}


def fine_tune(net: nn.Module, table: Table, data: Dataset, recipe: Recipe, checkpoint: Path | None = None) -> nn.Module:
    """Replaces the layers of `table` in a trained network, trains it on, resumable as `train.train`, and returns it.

    All layers learn, unless the recipe freezes what runs before the first of them. The exact network is the teacher where the
    recipe distils.
    """
    torch.manual_seed(recipe.seed)
    teacher = teacher_of(net, recipe)
    convert(net, table)
    before = prepare(net, data.train.first(PCA_IMAGES).images)
    frozen = before if recipe.freeze else []
    layers = json.dumps(to_json(table), sort_keys=True) if table else ""
    return train.train(net, data, recipe, checkpoint, train.Guide(teacher, frozen=frozen, layers=layers))


@torch.no_grad()
def prepare(net: nn.Module, images: Images) -> list[nn.Module]:
    """Fits the hashes that begin at principal axes; returns the parts that run before the first TREC layer alone."""
    order: list[nn.Module] = []

    def seen(part: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        order.append(part)
        if isinstance(part, Layer) and part.hash in ("pca", "learned"):
            part.fit_pca(inputs[0])

    hooks = [part.register_forward_pre_hook(seen) for part in net.modules() if not list(part.children())]
    net.eval()(torch.from_numpy(images))
    for hook in hooks:
        hook.remove()
    first = next((i for i, part in enumerate(order) if isinstance(part, Layer)), 0)
    return [part for part in order[:first] if part not in order[first:]]


def load_trec(name: str, data: str = "cifar10") -> nn.Module:
    """Returns a network with its TREC layers and the weights fine-tuned on `data`, ready for inference.

    Raises MissingDataError where there are none.
    """
    path = nets.weights_file(name, data, "trec")
    if path is None:
        raise MissingDataError(f"{name} has no TREC weights for {data}; make them by `tinyredux train {name} --method trec`")
    net = nets.resolve(name)
    record = path.with_suffix(".json")
    convert(net, from_json(_content(name, record).get("table"), str(record)))
    nets.load_weights(net, path)
    return net.eval()
