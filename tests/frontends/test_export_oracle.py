"""Every operator with odd arguments, drawn at random: the exported graph gives torch's own values, or export refuses in words.

Export's own comparison with the module is switched off here, so that each operator must be right by itself.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_export import Net, conv
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from tinyredux.frontends import torch_export as exporting
from tinyredux.int8 import interpret

Draw = random.Random
Forward = Callable[[Any, torch.Tensor], Any]
Drawn = tuple[Forward, dict[str, Any]]


def pair_of(draw: Draw, *options: int) -> Any:
    """Returns a number, or a pair of them."""
    return draw.choice(options) if draw.random() < 0.5 else (draw.choice(options), draw.choice(options))


def on_map(function: Callable[[torch.Tensor], Any], draw: Draw) -> Drawn:
    """Returns a forward that applies a function to the map of a convolution, then perhaps to a ReLU or a convolution's."""
    after = draw.choice((lambda m, y: y, lambda m, y: torch.relu(y), lambda m, y: m.a(y) if y.ndim == 4 else y))
    return (lambda m, x: after(m, function(m.a(x)))), {"a": conv(4, 4, 1)}


def layer(module: nn.Module) -> Drawn:
    """Returns a forward of one layer behind a convolution."""
    return (lambda m, x: m.b(m.a(x))), {"a": conv(4, 4, 1), "b": module}


def pools(draw: Draw) -> Drawn:
    kernel, stride = pair_of(draw, 1, 2, 3), draw.choice((None, pair_of(draw, 1, 2, 4)))
    options: dict[str, Any] = {"padding": draw.choice((0, 0, 1, (1, 0))), "ceil_mode": draw.random() < 0.5}
    if draw.random() < 0.5:
        options["dilation"] = pair_of(draw, 1, 1, 2)
        return on_map(lambda y: functional.max_pool2d(y, kernel, stride, **options), draw)
    options["count_include_pad"] = draw.random() < 0.5
    options["divisor_override"] = draw.choice((None, None, 1, 3))
    return on_map(lambda y: functional.avg_pool2d(y, kernel, stride, **options), draw)


def adaptive(draw: Draw) -> Drawn:
    size = draw.choice((1, 2, 3, None, (1, 3), (None, 2)))
    function = draw.choice((functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d))
    return on_map(lambda y: function(y, size), draw)


def convolutions(draw: Draw) -> Drawn:
    groups = draw.choice((1, 2, 4))
    padding: Any = draw.choice((0, 1, (0, 2), "same", "valid"))
    stride = 1 if padding == "same" else pair_of(draw, 1, 2, 3)
    mode = draw.choice(("zeros",) * 4 + ("reflect", "circular", "replicate"))
    options = {"stride": stride, "padding": padding, "dilation": pair_of(draw, 1, 1, 2), "groups": groups, "padding_mode": mode}
    if draw.random() < 0.2:
        return layer(nn.ConvTranspose2d(4, 4, 2, stride=2, output_padding=draw.choice((0, 1)), groups=groups))
    return layer(nn.Conv2d(4, 8, pair_of(draw, 1, 2, 3), bias=draw.random() < 0.5, **options))


def norms(draw: Draw) -> Drawn:
    affine, track, training = draw.random() < 0.7, draw.random() < 0.7, draw.random() < 0.4
    eps, momentum = draw.choice((1e-5, 0.1, 1, 0)), draw.choice((0.1, None, 0.9))
    legit, behind = torch.ops.aten._native_batch_norm_legit_no_training.default, {"a": conv(4, 4, 1), "b": nn.BatchNorm2d(4)}
    module = behind | {"b": nn.BatchNorm2d(4, eps, momentum, affine, track)}
    cases: tuple[Drawn, ...] = (
        (lambda m, x: m.b.train(False)(m.a(x)), module), (lambda m, x: m.b.train(True)(m.a(x)), module),
        layer(nn.InstanceNorm2d(4, affine=affine, track_running_stats=track)), layer(nn.GroupNorm(2, 4)),
        (lambda m, x: m.c(m.a(x).flatten(2)), behind | {"c": nn.BatchNorm1d(4, eps)}),
        (lambda m, x: legit(m.a(x), m.b.weight, m.b.bias, m.b.running_mean, m.b.running_var, 0.5, float(eps))[0], behind),
        (lambda m, x: functional.batch_norm(
            m.a(x), m.b.running_mean, m.b.running_var, m.b.weight if affine else None, None, training, 0.3, eps), behind),
    )  # fmt: skip
    return draw.choice(cases)


def dropouts(draw: Draw) -> Drawn:
    rate, training, in_place = draw.choice((0.0, 0.3, 1.0)), draw.random() < 0.6, draw.random() < 0.3
    function = draw.choice((functional.dropout, functional.dropout2d, functional.alpha_dropout, functional.feature_alpha_dropout))
    if draw.random() < 0.3:
        module = draw.choice((nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout))(rate, inplace=in_place)
        return (lambda m, x: m.b.train(training)(m.a(x))), {"a": conv(4, 4, 1), "b": module}
    return on_map(lambda y: function(y, rate, training), draw)


def paddings(draw: Draw) -> Drawn:
    sides = [draw.choice((0, 1, 2, -1) if draw.random() < 0.3 else (0, 1, 2)) for _ in range(draw.choice((2, 4, 4, 6)))]
    mode = draw.choice(("constant",) * 4 + ("reflect", "replicate", "circular"))
    value = draw.choice((0.0, 0.0, 0, -0.0, 1e-3)) if mode == "constant" else None
    spelt = draw.choice(("pad", "constant_pad_nd"))
    between = draw.choice((lambda y: y, torch.relu, lambda y: y.contiguous()))
    if spelt == "pad" or mode != "constant":
        return (lambda m, x: m.a(between(functional.pad(x, sides, mode, value)))), {
            "a": conv(4, 4, 2, padding=draw.choice((0, 1)))
        }
    return (lambda m, x: m.a(between(torch.constant_pad_nd(x, sides, value or 0)))), {"a": conv(4, 4, 2)}


def additions(draw: Draw) -> Drawn:
    shapes = ((4, 1, 1), (1, 4, 1, 1), (6,), (1,), (), (4, 5, 6), (1, 4, 5, 6), (5, 1), (1, 1, 1, 1))
    vector = nn.Parameter(torch.ones(draw.choice(shapes)))
    layers = {"a": conv(4, 4, 1), "b": conv(4, draw.choice((1, 4, 4)), 1), "v": vector}
    alpha = draw.choice((1, 1, 2, 0, 1.0))
    other: Forward = draw.choice((
        lambda m, x: m.b(x), lambda m, x: m.v, lambda m, x: draw_number, lambda m, x: m.b(x).mean((2, 3)),
        lambda m, x: m.b(x).mean((2, 3), keepdim=True), lambda m, x: m.b(x).mean(2), lambda m, x: m.b(x).mean(3, keepdim=True),
        lambda m, x: m.b(x).flatten(2), lambda m, x: m.b(x).flatten(1), lambda m, x: m.b(x).amax(2, keepdim=True),
    ))  # fmt: skip
    draw_number = draw.choice((0, 1, 0.5, 0.0, True))
    first: Forward = draw.choice((lambda m, x: m.a(x), lambda m, x: m.a(x).mean((2, 3)), lambda m, x: m.a(x).mean((2, 3), True)))
    spelt = draw.choice((
        lambda a, b: torch.add(a, b, alpha=alpha), lambda a, b: a + b, lambda a, b: b + a, lambda a, b: a - b,
        lambda a, b: torch.sub(a, b, alpha=alpha), lambda a, b: a.add_(b), lambda a, b: a * b, lambda a, b: torch.rsub(a, b),
    ))  # fmt: skip
    return (lambda m, x: spelt(first(m, x), other(m, x))), layers


def reductions(draw: Draw) -> Drawn:
    dims = draw.choice((2, 3, (2, 3), [-1, -2], (3, 2), 1, (1, 2, 3), (0, 2, 3), 0, [], None))
    keep, dtype = draw.random() < 0.5, draw.choice((None, None, torch.float64, torch.float16))
    kind = draw.choice(("mean", "amax", "sum", "amin", "max", "std"))

    def function(y: torch.Tensor) -> torch.Tensor:
        if kind == "mean":
            return y.mean(dims, keep, dtype=dtype) if dims is not None else y.mean(dtype=dtype)
        if kind == "max":
            return y.max(2, keep)[0]
        return getattr(y, kind)(dims if dims is not None else 1, keepdim=keep)

    after = draw.choice((lambda y: y, lambda y: y.mean(-1), lambda y: y.flatten(1), torch.relu))
    return on_map(lambda y: after(function(y)), draw)


PLAIN: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda y: y.flatten(1), lambda y: y.flatten(2), lambda y: y.reshape(y.shape[0], -1), lambda y: y.unsqueeze(-1),
    lambda y: y.mean(-1), lambda y: y.view(y.shape[0], -1, 1, 1), lambda y: functional.max_pool2d(y, 2), torch.relu,
    lambda y: functional.adaptive_avg_pool2d(y, 1), lambda y: y.contiguous(), lambda y: functional.avg_pool2d(y, (1, 2)),
    lambda y: y.unflatten(1, (4, -1)), lambda y: y.clone(), lambda y: y.squeeze(-1), lambda y: y.expand(y.shape),
)  # fmt: skip
ODD: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda y: y.flatten(), lambda y: y.flatten(0, 1), lambda y: y.squeeze(), lambda y: y.unsqueeze(1), lambda y: y.view(1, -1),
    lambda y: y.transpose(1, -1), lambda y: y.permute(*range(y.ndim)), lambda y: y.permute(0, *range(y.ndim - 1, 0, -1)),
    lambda y: y.reshape(y.shape[0], y.shape[-1], -1), lambda y: y.mT, lambda y: y.swapaxes(-1, -2), lambda y: y[:, :2],
    lambda y: y[..., 0], lambda y: y[:, 0], lambda y: y[0], lambda y: y[None], lambda y: y.unflatten(1, (2, -1)),
    lambda y: y.narrow(1, 0, 1), lambda y: y.flip(-1), lambda y: y.roll(1, -1), lambda y: y.expand(-1, *y.shape[1:]),
    lambda y: y.repeat(1, 2, *[1] * (y.ndim - 2)), lambda y: y.movedim(-1, 1), lambda y: functional.pixel_shuffle(y, 2),
    lambda y: functional.pixel_unshuffle(y, 2), lambda y: y.mean(1), lambda y: y.mean((1, -1), keepdim=True),
    lambda y: y.to(memory_format=torch.channels_last), lambda y: functional.unfold(y, 2), lambda y: functional.softmax(y, 1),
    lambda y: functional.channel_shuffle(y, 2), lambda y: y.unbind(-1)[0], lambda y: y.chunk(1, 1)[0], lambda y: y.select(-1, 0),
    lambda y: y.split(2, 1)[1], lambda y: torch.stack([y, y], 1).flatten(1, 2), lambda y: torch.hstack([y, y]),
    lambda y: torch.vstack([y, y]),
)  # fmt: skip


def shapes(draw: Draw) -> Drawn:
    steps = [draw.choice(PLAIN if draw.random() < 0.8 else ODD) for _ in range(draw.choice((1, 2, 3, 4)))]

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        for step in steps:
            y = step(y)
        return m.b(y) if hasattr(m, "b") else y

    ends: list[dict[str, nn.Module]] = [{}, {"b": nn.LazyLinear(5)}, {"b": nn.LazyLinear(5)}, {"b": nn.LazyConv2d(3, 1)}]
    return forward, {"a": conv(4, 4, 1), **draw.choice(ends)}


def activations(draw: Draw) -> Drawn:
    low, high = draw.choice((0, 0.0, None, -1, 1)), draw.choice((6, 6.0, None, float("inf"), 5))
    function = draw.choice((
        lambda y: y.clamp(low, high) if (low, high) != (None, None) else y.relu(), lambda y: y.clip(min=low, max=6),
        lambda y: functional.hardtanh(y, 0, draw_high), lambda y: functional.hardtanh_(y, 0.0, 6.0), functional.relu6,
        lambda y: functional.threshold(y, 0.0, low_value), lambda y: y.clamp_min(0), lambda y: y.clamp_max(6),
        lambda y: y.clamp_(0), lambda y: torch.maximum(y, torch.zeros(())), functional.selu, functional.celu, functional.rrelu,
        functional.hardsigmoid, functional.softplus, functional.softsign, torch.abs, torch.square, torch.neg, functional.glu,
        lambda y: functional.leaky_relu(y, 0.0), functional.mish, functional.logsigmoid, functional.tanhshrink, torch.exp,
        lambda y: functional.hardshrink(y), lambda y: functional.normalize(y), lambda y: functional.local_response_norm(y, 2),
    ))  # fmt: skip
    draw_high, low_value = draw.choice((6, 6.0, 1)), draw.choice((0.0, 1.0))
    return on_map(function, draw)


def softmaxes(draw: Draw) -> Drawn:
    dim, dtype = draw.choice((1, 1, -1, 2, 0, -3, 3)), draw.choice((None, torch.float64, torch.float32))
    before = draw.choice((lambda y: y, lambda y: y.flatten(1), lambda y: y.mean((2, 3)), lambda y: y.flatten(2)))
    function = draw.choice((functional.softmax, functional.softmax, functional.log_softmax, functional.softmin))
    return on_map(lambda y: function(before(y), dim, dtype=dtype), draw)


def joins(draw: Draw) -> Drawn:
    dim = draw.choice((1, 1, -3, 0, 2, -1))
    parts: Forward = draw.choice((
        lambda m, x: [m.a(x), m.b(x)], lambda m, x: [m.a(x), torch.zeros(1, 4, *x.shape[2:])],
        lambda m, x: [m.a(x).flatten(1), m.b(x).flatten(1)], lambda m, x: [m.a(x).flatten(2), m.b(x).flatten(2)],
        lambda m, x: [x, x], lambda m, x: [m.a(x), torch.zeros(0)], lambda m, x: [m.a(x).mean((2, 3)), m.b(x).mean((2, 3))],
        lambda m, x: [functional.pad(m.a(x), (1, 1)), functional.pad(x, (1, 1))],
        lambda m, x: [m.a(x), m.a(x).flatten(1).view(m.a(x).shape)],
    ))  # fmt: skip
    return (lambda m, x: torch.cat(parts(m, x), dim)), {"a": conv(4, 4, 1), "b": conv(4, 4, 1)}


def in_place(draw: Draw) -> Drawn:
    view = draw.choice((
        lambda a: a.view(a.shape[0], -1), lambda a: a.detach(), lambda a: a[:, 0:2], lambda a: a.transpose(2, 3), lambda a: a,
        lambda a: a[0],
    ))  # fmt: skip
    copy = draw.choice((
        torch.clone, lambda a: a + 0, lambda a: a.contiguous(), lambda a: a.to(torch.float32), functional.dropout,
        lambda a: a.flatten(2).view(a.shape),
    ))  # fmt: skip
    write = draw.choice((
        lambda y: y.relu_(), lambda y: y.add_(1), lambda y: y.zero_(), lambda y: y.clamp_(0, 6), lambda y: y.mul_(2),
        lambda y: y.add_(y.clone()), lambda y: y.__setitem__((slice(None), 0), 0.0),
        lambda y: functional.dropout(y, 0.5, True, True),
    ))  # fmt: skip
    of_view, read = draw.random() < 0.5, draw.random() < 0.5
    function: Forward = draw.choice((
        lambda m, x: (a := m.a(x), b := view(a), write(b if of_view else a), m.b(a) if read else m.b(b.reshape(a.shape)))[3],
        lambda m, x: (a := m.a(x), b := view(a), write(b if of_view else a), m.b(a if read else x))[3],
        lambda m, x: (a := m.a(x), b := a, write(a), a + b + m.b(x))[3],
        lambda m, x: (y := x.clone(), write(y), m.a(y) + m.b(x))[2],
        lambda m, x: (a := m.a(x), b := copy(a), write(b), a + b)[3],
        lambda m, x: (m.buffer_.add_(1.0), functional.conv2d(x, m.buffer_ * 0.1))[1],
        lambda m, x: (a := m.a(x), b := m.b(x), torch.add(a, b, out=a), a + b)[3],
    ))  # fmt: skip
    return function, {"a": conv(4, 4, 1), "b": conv(4, 4, 1), "buffer_": nn.Buffer(torch.ones(4, 4, 1, 1))}


def types(draw: Draw) -> Drawn:
    kinds = (torch.int32, torch.int8, torch.uint8, torch.bool, torch.float16, torch.float64, torch.bfloat16, torch.complex64)
    kind = draw.choice(kinds)
    spelt = draw.choice((lambda y: y.to(kind).float(), lambda y: y.type(kind).float(), lambda y: y.round(), lambda y: y.to(kind)))
    scaled = draw.random() < 0.2
    return on_map(lambda y: spelt(y * 1 if scaled else y), draw)


def constants(draw: Draw) -> Drawn:
    forward: Forward = draw.choice((
        lambda m, x: m.v, lambda m, x: torch.ones(1, 3), lambda m, x: x * 0, lambda m, x: torch.zeros_like(x), lambda m, x: 3,
        lambda m, x: None, lambda m, x: (m.a(x), None), lambda m, x: {"y": m.a(x)}, lambda m, x: [m.a(x)],
        lambda m, x: (m.a(x), 3), lambda m, x: (m.a(x), m.v), lambda m, x: x, lambda m, x: m.a(m.v),
        lambda m, x: m.a(x) if True else x, lambda m, x: "text", lambda m, x: functional.conv2d(x, torch.randn(3, 4, 1, 1)),
        lambda m, x: m.a(x) + torch.randn(1), lambda m, x: m.a(torch.rand_like(x)),
        lambda m, x: functional.conv2d(x, m.a.weight.data.fill_(2.0)),
        lambda m, x: functional.conv2d(x, m.a.weight.detach() * 2, m.a.bias + 1),
        lambda m, x: functional.linear(x.flatten(1), torch.eye(x[0].numel())[:3]),
        lambda m, x: functional.linear(x.flatten(1), torch.rand(3, x[0].numel())),
        lambda m, x: functional.linear(x.mean((2, 3)), m.a.weight.flatten(1)), lambda m, x: torch.bernoulli(m.a(x).sigmoid()),
    ))  # fmt: skip
    return forward, {"a": conv(4, 4, 1), "v": nn.Parameter(torch.ones(1, 4, 5, 6))}


DRAWS = (
    pools, adaptive, convolutions, norms, dropouts, paddings, additions, reductions, shapes, activations, softmaxes, joins,
    in_place, types, constants,
)  # fmt: skip


def outcome(draws: Callable[[Draw], Drawn], seed: int) -> str | None:
    """Returns what is wrong with one drawn network, or None: torch's values within 1e-4, or a ValueError in words."""
    draw = Draw(f"{draws.__name__} {seed}")
    torch.manual_seed(seed)
    shape = (4, *draw.choice(((5, 6), (6, 4), (4, 4), (1, 4), (4, 1), (1, 1), (2, 3), (7, 6))))
    forward, layers = draws(draw)
    net = Net(forward, shape)
    for name, value in layers.items():
        setattr(net, name, value)
    images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    try:
        with torch.no_grad():
            net.eval()(images)  # lazy layers take their sizes
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None  # torch itself refuses the arguments
    try:
        graph, builder = exporting.export_with_names(net, name="net")
    except ValueError as refused:
        said = str(refused)
        return None if len(said) > 25 and " " in said and "unpack" not in said else f"refused without words: {said!r}"
    with torch.no_grad():
        returned = tree_leaves(net.eval()(images))
    values = interpret.run_all(graph, images.to(torch.float32).numpy().transpose(0, 2, 3, 1))
    kind = next((value.dtype for value in net.parameters()), torch.float32)
    for name, expected in zip(graph.outputs, returned, strict=True):
        found = values[name] if name in builder.in_place_order else values[name].transpose(0, 3, 1, 2)
        wanted = expected.to(torch.float32).numpy().reshape(-1)
        difference = float(np.abs(found.reshape(-1) - wanted).max()) if found.size == wanted.size else np.inf
        limit = (1e-4 if kind == torch.float32 else 1e-2) * max(1.0, float(np.abs(wanted).max()))
        if difference > {types: 0.05, reductions: 1e-3}.get(draws, limit):  # half precision rounds
            return f"{name} differs by {difference:.3g}"
    return None


@pytest.mark.parametrize("seeds", [range(14), pytest.param(range(14, 600), marks=pytest.mark.sweep)], ids=["few", "many"])
@pytest.mark.parametrize("draws", DRAWS, ids=lambda draws: draws.__name__)
@pytest.mark.filterwarnings("ignore")
def test_operators_with_odd_arguments(draws: Callable[[Draw], Drawn], seeds: range) -> None:
    """Without the comparison that `export` ends with."""
    wrong = {seed: said for seed in seeds if (said := outcome(draws, seed))}
    assert not wrong, f"{draws.__name__}: {wrong}"


CALLS = itertools.count(1)  # stands for random numbers: another value at each call, and never two close to each other
UNSEEN: tuple[tuple[Forward, str], ...] = (  # drawn in Python, of the batch's size, of one image alone; a map without its form
    (lambda m, x: functional.conv2d(x, m.a.weight * next(CALLS)), "other values than torch's own .* no random numbers"),
    (lambda m, x: m.a(x) if x.shape[0] == 1 else m.b(x), "gives other values than torch's own program"),
    (lambda m, x: m.a(x).view(1, 4, 5, -1), "returns|reshape|runs for one image"),
    (lambda m, x: functional.max_pool2d(x.flatten(2), (1, 2)), r"max_pool2d on a tensor of shape \(1, 4, 30\)"),
    (lambda m, x: m.d(x.flatten(2)), r"conv2d on a tensor of shape \(1, 4, 30\)"),
    (lambda m, x: functional.batch_norm(m.a(x), torch.zeros(4), torch.ones(4), training=True), r"training=True"),
    (lambda m, x: functional.dropout(m.a(x), 1.0, True), "dropout while running"),
    (lambda m, x: m.a(x).amax((2, 3)) + m.a(x).amax((2, 3), True), r"adding tensors of shapes \(1, 4\) and \(1, 4, 1, 1\)"),
)  # fmt: skip


@pytest.mark.parametrize(("forward", "words"), UNSEEN, ids=range(len(UNSEEN)))
def test_what_torch_s_program_does_not_show_is_noticed(forward: Forward, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        net = Net(forward, (4, 5, 6), a=conv(4, 4, 1), b=conv(4, 4, 1), d=conv(1, 4, 1))
        exporting.export(net, name="net")


def test_batch_norm_reads_eps_by_its_name() -> None:
    """A whole number in the place of eps, so that momentum is the last number with a fraction."""
    net = Net(lambda m, x: functional.batch_norm(m.a(x), torch.zeros(4), torch.ones(4), None, None, False, 0.7, 3), a=conv(4, 4))
    images = torch.randn(1, 4, 9, 11)
    found = interpret.run(exporting.export(net), images.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found, net.eval()(images).detach().numpy().transpose(0, 2, 3, 1), atol=1e-5)
