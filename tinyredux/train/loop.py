"""Training from scratch on a CPU in a short loop: seeded, resumable, bfloat16, with a validation split."""

import copy
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from tinyredux import datasets
from tinyredux.datasets import Dataset, Images, Labels, Split
from tinyredux.files import check_is_file, expect, require, write_whole

Optimizer = torch.optim.Optimizer
Schedule = torch.optim.lr_scheduler.LRScheduler
CHECKPOINT = "tinyredux checkpoint"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: one warm-up and one cosine fall of the learning rate; SGD with Nesterov momentum, or AdamW, whose
    first mean is the momentum and whose decay leaves vectors alone (Loshchilov and Hutter, arXiv 1711.05101)."""

    epochs: int = 30
    batch: int = 128
    peak_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.1
    warmup_share: float = 0.2
    seed: int = 0
    augment: bool = True  # but for a user's own data, of which only the user knows what may be mirrored
    distil: float = 0.0  # share of the loss that compares with a teacher, the rest with the labels
    temperature: float = 2.0  # at which both outputs are compared
    dropout_factor: float = 1.0  # on the network's own dropout while it trains
    average: float = 0.0  # share of the running mean of the weights that a step keeps; the mean is the result. 0: the last ones
    freeze: bool = False  # what runs before the first layer that fine-tuning changes stays as it was
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        for field, most in (("epochs", 1e6), ("batch", 1e6), ("peak_rate", 1e30), ("temperature", 1e30)):
            value = getattr(self, field)
            require(0 < value <= most, f"recipe: {field} is {value}, expected more than 0 and at most {most:,g}")
        for field in ("momentum", "weight_decay", "smoothing", "warmup_share", "distil", "average"):
            require(0 <= getattr(self, field) <= 1, f"recipe: {field} is {getattr(self, field)}, expected 0 to 1")
        require(self.optimizer in ("sgd", "adamw"), f"recipe: optimizer is {self.optimizer!r}, expected sgd or adamw")
        require(0 <= self.seed < 1 << 32, f"recipe: seed is {self.seed}, expected 0 to {(1 << 32) - 1}")


@dataclass(frozen=True)
class Guide:
    """What a training looks at beside the labels: a network to imitate, who is called after each backward pass, what stays.

    `layers` says what tells the network from others of equal shapes: a checkpoint of other layers is refused.
    """

    teacher: nn.Module | None = None
    watch: Callable[[], None] | None = None
    frozen: Sequence[nn.Module] = ()
    layers: str = ""


NO_GUIDE = Guide()
SYNTHETIC = Recipe(epochs=8, batch=64, peak_rate=0.05)
_SHORT, _WORDS = Recipe(epochs=18), Recipe(epochs=60, batch=64)
RECIPES = {
    "alexnet": _SHORT, "cifarnet_quick": _SHORT, "squeezenet": _SHORT, "squeezenet_bypass": _SHORT, "zfnet": _SHORT,
    "lenet": Recipe(epochs=24), "ds_cnn": _WORDS, "keyword_cnn": _WORDS, "ds_cnn_wide": Recipe(epochs=30, batch=64),
    "cct": Recipe(epochs=32, peak_rate=1.5e-3, weight_decay=0.05, optimizer="adamw"),
    "keyword_transformer": Recipe(epochs=120, batch=64, peak_rate=2e-3, weight_decay=0.3, optimizer="adamw"),
}  # fmt: skip


def augmented(images: torch.Tensor, generator: torch.Generator, margin: int = 4) -> torch.Tensor:
    """Returns images (N, C, H, W) flipped at random and shifted by up to `margin` pixels, reflected at the edges."""
    count, _, height, width = images.shape
    padded = functional.pad(images, [margin] * 4, mode="reflect").permute(0, 2, 3, 1)
    top, left = (torch.randint(0, 2 * margin + 1, (count, 1), generator=generator) for _ in range(2))
    flip, columns = torch.rand((count, 1), generator=generator) < 0.5, torch.arange(width)
    rows, columns = top + torch.arange(height), left + torch.where(flip, columns.flip(0), columns)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def shifted(images: torch.Tensor, generator: torch.Generator, margin: int = 5, noise: float = 0.3) -> torch.Tensor:
    """Returns sounds (N, C, H, W), rows being moments, moved by up to `margin` rows, edges repeated, with normal noise."""
    count, _, height, _ = images.shape
    start = torch.randint(-margin, margin + 1, (count,), generator=generator)
    rows = (start[:, None] + torch.arange(height)).clamp(0, height - 1)
    moved = images[torch.arange(count)[:, None], :, rows].transpose(1, 2)
    return moved + noise * torch.randn(moved.shape, generator=generator)


def use_cores(cores: int | None) -> None:
    """Lets torch use so many cores for what is not training, whose sums keep their order; None changes nothing."""
    if cores:
        torch.set_num_threads(cores)


@torch.no_grad()
def predictions(net: nn.Module, images: Images, batch: int = 250) -> Labels:
    """Returns the winning class (N,) of each image (N, C, H, W), in float32."""
    was_training = net.training
    net.eval()
    parts = [logits_of(net, torch.from_numpy(images[i : i + batch])).argmax(1) for i in range(0, len(images), batch)]
    net.train(was_training)
    return np.concatenate([part.numpy() for part in parts]) if parts else np.zeros(0, np.int64)


def logits_of(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Returns a network's logits for images (N, C, H, W). Raises ValueError where it returns more than them."""
    logits = net(images)
    expected = "expected the logits of the classes alone: train it with your own losses, then export it with all its outputs"
    require(isinstance(logits, torch.Tensor), f"the network returns a {type(logits).__name__}, {expected}")
    return cast(torch.Tensor, logits)


def correct(net: nn.Module, split: Split) -> int:
    """Returns how many images of the split the float network gets right."""
    if split.labels is None:
        raise ValueError("cannot count correct answers: the data has no labels")
    return int((predictions(net, split.images) == split.labels).sum())


def recipe_for(name: str, data: str, epochs: int | None = None, seed: int | None = None) -> Recipe:
    """Returns the recipe of a network on a data set, with `epochs` and `seed` replaced where they are given."""
    return given(SYNTHETIC if data == "synthetic" else RECIPES.get(name, Recipe()), epochs, seed)


def given(recipe: Recipe, epochs: int | None, seed: int | None) -> Recipe:
    """Returns a recipe with `epochs` and `seed` replaced where they are given."""
    return replace(recipe, epochs=recipe.epochs if epochs is None else epochs, seed=recipe.seed if seed is None else seed)


def check_data(net: nn.Module, data: Dataset) -> None:
    """Raises ValueError for data without labelled training images, and a network that does not give each image of it classes."""
    expect(Dataset, data, "the data", "such as datasets.of(train=(images, labels), test=loader)")
    datasets.check_part(data, "training")
    with torch.no_grad():
        shape = tuple(logits_of(net.eval(), torch.from_numpy(data.train.first(1).images)).shape)
    require(len(shape) == 2, f"cannot train a network that returns {shape}; expected (images, classes): flatten at its end")
    for part in ("train", "validation", "test"):
        datasets.check_labels(getattr(data, part), shape[1], part)


def train(net: nn.Module, data: Dataset, recipe: Recipe, checkpoint: Path | None = None, guide: Guide = NO_GUIDE) -> nn.Module:
    """Trains `net` in place on the training split and returns it.

    With `checkpoint`, the state is saved there after every epoch and training resumes from it: the result is the
    same as without the interruption, since every epoch seeds its own generator. One thread, so that sums keep their
    order. A share of the loss, `recipe.distil`, is the distance from the guide's teacher. With `recipe.average`, the result
    and what validation shows is the running mean of the weights that the batches met. Fewer images than a batch are one. Raises
    ValueError for data that does not fit the network, or a checkpoint of another recipe or other layers.
    """
    check_data(net, data)
    steps = max(1, data.train.count // recipe.batch)
    with _alone(net, recipe):
        torch.manual_seed(recipe.seed)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for part in guide.frozen:
            part.requires_grad_(False)
        optimizer = _optimizer(net, recipe)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.peak_rate, total_steps=recipe.epochs * steps, pct_start=recipe.warmup_share, cycle_momentum=False
        )
        step = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        mean = AveragedModel(net, multi_avg_fn=step, use_buffers=True) if recipe.average else None
        parts = {"net": net, "optimizer": optimizer, "schedule": schedule} | ({"mean": mean} if mean else {})
        settings = {"recipe": json.dumps(asdict(recipe)), "layers": guide.layers}
        begin = _resume(checkpoint, parts, settings) if checkpoint else 0
        epochs = tqdm(range(begin, recipe.epochs), "epochs", recipe.epochs, initial=begin, leave=False, disable=None)
        for epoch in epochs:
            loss = _epoch(net, data, recipe, epoch, optimizer, schedule, guide, mean)
            if checkpoint:
                _save(checkpoint, parts, settings, epoch + 1)
            share = 100 * correct(mean.module if mean else net, data.validation) / max(1, data.validation.count)
            epochs.set_postfix(loss=f"{loss:.3f}", validation=f"{share:.2f} %")
        if mean:
            net.load_state_dict(mean.module.state_dict())
    return net


def _optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            net.parameters(), recipe.peak_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
        )
    vectors, matrices = ([value for value in net.parameters() if (value.ndim > 1) == many] for many in (False, True))
    groups: list[dict[str, Any]] = [{"params": vectors, "weight_decay": 0.0}, {"params": matrices}]
    betas = (recipe.momentum, 0.999)
    return torch.optim.AdamW(groups, recipe.peak_rate, betas, weight_decay=recipe.weight_decay, fused=True)


def teacher_of(net: nn.Module, recipe: Recipe, kind: torch.dtype = torch.float32) -> nn.Module | None:
    """Returns a copy of a network to imitate, where the recipe distils."""
    return copy.deepcopy(net).eval().to(kind, memory_format=torch.channels_last) if recipe.distil else None  # type: ignore[call-overload]


@contextmanager
def _alone(net: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Gives torch one thread and the network the recipe's dropout, until the training is over."""
    threads, dropouts = torch.get_num_threads(), {part: part.p for part in net.modules() if isinstance(part, nn.Dropout)}
    try:
        torch.set_num_threads(1)
        for part, share in dropouts.items():
            part.p = share * recipe.dropout_factor
        yield
    finally:
        torch.set_num_threads(threads)
        for part, share in dropouts.items():
            part.p = share


def _epoch(
    net: nn.Module, data: Dataset, recipe: Recipe, epoch: int,
    optimizer: Optimizer, schedule: Schedule, guide: Guide, mean: AveragedModel | None,
) -> float:  # fmt: skip
    generator = torch.Generator().manual_seed(1000 * recipe.seed + epoch)
    torch.manual_seed(1000 * recipe.seed + epoch)
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    vary = shifted if data.sound else augmented
    augment = recipe.augment and not data.sha256
    order = torch.randperm(len(images), generator=generator)
    net.train()
    for part in guide.frozen:
        part.eval()  # batch norm keeps its statistics
    total, steps = 0.0, max(1, len(images) // recipe.batch)
    for step in tqdm(range(steps), "steps", leave=False, disable=None):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        batch = vary(images[chosen], generator) if augment else images[chosen]
        loss = _loss(net, batch.contiguous(memory_format=torch.channels_last), labels[chosen], recipe, guide.teacher)
        if not torch.isfinite(loss):
            raise ValueError(f"cannot train: loss is {loss.item()} in epoch {epoch + 1}, step {step}; lower peak_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if guide.watch:
            guide.watch()
        if mean:
            mean.update_parameters(net)
        optimizer.step()
        schedule.step()
        total += loss.item()
    return total / steps


def _loss(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe, teacher: nn.Module | None) -> torch.Tensor:
    """Returns the mean loss of a batch: cross entropy, and the distance from the teacher's softened output.

    Source: Hinton, Vinyals and Dean, arXiv 1503.02531, section 2.
    """
    with torch.autocast("cpu", torch.bfloat16):
        logits = logits_of(net, images).float()
    loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
    if teacher is None or not recipe.distil:
        return loss
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = teacher(images).float()
    heat = recipe.temperature
    soft, target = functional.log_softmax(logits / heat, 1), functional.softmax(wanted / heat, 1)
    distance = functional.kl_div(soft, target, reduction="batchmean") * heat * heat
    return (1 - recipe.distil) * loss + recipe.distil * distance


def _save(path: Path, parts: Mapping[str, Any], settings: Mapping[str, str], epoch: int) -> None:
    save_checkpoint(path, {**{name: part.state_dict() for name, part in parts.items()}, **settings, "epoch": epoch})


def _resume(path: Path, parts: Mapping[str, Any], settings: Mapping[str, str]) -> int:
    """Puts a checkpoint's state into the parts; returns the epochs that it has made, 0 where there is none."""
    if not (state := read_checkpoint(path, settings, "epoch", *parts)):
        return 0
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, ValueError) as failure:
        raise ValueError(f"checkpoint {path} is of another network or table; remove it to begin anew") from failure
    return int(state["epoch"])


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all: a line with the sha256 of what follows, then what torch writes."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    write_whole(path, f"{CHECKPOINT} {hashlib.sha256(content.getvalue()).hexdigest()}\n".encode() + content.getvalue())


def read_checkpoint(path: Path, settings: Mapping[str, str], *keys: str) -> dict[str, Any]:
    """Returns what a checkpoint holds, `keys` among it; nothing where there is none yet.

    Raises ValueError for a file that is damaged or something else, and for one that was made with other settings.
    """
    if not path.exists():
        return {}
    check_is_file(path, "checkpoint")
    head, _, content = path.read_bytes().partition(b"\n")
    whole = head.decode("ascii", "replace") == f"{CHECKPOINT} {hashlib.sha256(content).hexdigest()}"
    require(whole, f"{path} is no checkpoint, or damaged; remove it to begin anew")
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    missing = sorted({*settings, *keys} - set(state))
    require(not missing, f"{path} is no checkpoint of this kind: it lacks {', '.join(missing)}; remove it to begin anew")
    for name, value in settings.items():
        said = f"checkpoint {path} was made for {name} {state[name] or 'none'}; remove it to begin anew, or use those"
        require(state[name] == value, said)
    return state
