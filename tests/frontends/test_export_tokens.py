"""Attention as networks write it: the exported graph is what torch computes (export itself compares), or is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tinyredux.flow import compile, measure
from tinyredux.frontends import export
from tinyredux.graph import AddConstant, Attention, Conv, DepthwiseConv, Graph, LayerNorm, MatMul, Rearrange, TrecConv
from tinyredux.int8 import interpret, quantize
from tinyredux.methods.layerwise import Layerwise
from tinyredux.trec.layer import Settings, convert

SHAPE = (12, 3, 5)  # 15 tokens of 12 features
Block = Callable[[torch.Tensor], Any]


class Tokens(nn.Module):
    """What a function of layers and tokens (1, 15, 12) makes of a map."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], Any], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.1, 0.4)

    def forward(self, images: torch.Tensor) -> Any:
        return self.run(self, images.flatten(2).transpose(1, 2))


def packed(m: Any, x: torch.Tensor, heads: int, layer: Any = None) -> tuple[torch.Tensor, ...]:
    """Returns queries, keys and values (1, heads, tokens, features) of one layer for all, as timm's blocks have them."""
    count, tokens, width = x.shape
    q, k, v = (layer or m.qkv)(x).reshape(count, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def vit(m: Any, x: torch.Tensor, fused: bool = True) -> torch.Tensor:
    """A block of a vision transformer with an embedding of positions, and the mean of its tokens."""
    x = x + m.positions
    q, k, v = packed(m, m.norm1(x), 3)
    weighed = functional.scaled_dot_product_attention(q, k, v) if fused else (q * 0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
    x = x + m.project(weighed.transpose(1, 2).reshape(x.shape)) * m.scale
    return (x + m.mlp(m.norm2(x))).mean(1)


def vit_layers() -> dict[str, Any]:
    mlp = nn.Sequential(nn.Linear(12, 30), nn.GELU(), nn.Dropout(), nn.Linear(30, 12))
    norms = {"norm1": nn.LayerNorm(12), "norm2": nn.LayerNorm(12, eps=1e-3)}
    own = {"positions": nn.Parameter(torch.zeros(1, 15, 12)), "scale": nn.Parameter(torch.zeros(12))}
    return {"qkv": nn.Linear(12, 36), "project": nn.Linear(12, 12, bias=False), "mlp": mlp, **norms, **own}


def encoder(**settings: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(12, 4, 17, batch_first=True, **settings)


def halves(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Keys and values of one layer, queries of another; two heads; scores divided."""
    q, (k, v) = m.q(x).unflatten(-1, (2, 6)).transpose(1, 2), m.kv(x).chunk(2, dim=-1)
    k, v = (part.reshape(len(x), 15, 2, -1).permute(0, 2, 1, 3) for part in (k, v))
    shares = nn.Dropout(0.1).eval()(functional.softmax(torch.matmul(q, k.mT) / 3, dim=-1))
    return torch.matmul(shares, v).permute(0, 2, 1, 3).flatten(2)


def tokens(count: int) -> dict[str, Any]:
    own = {f"token{i}": nn.Parameter(torch.zeros(1, 1, 12)) for i in range(count)}
    return own | {"all_positions": nn.Parameter(torch.zeros(1, 15 + count, 12))}


def class_token(m: Any, x: torch.Tensor, read: int | None = None) -> torch.Tensor:
    """A block whose first tokens are learned: what one of them has become, or what the head says of the first."""
    own = [getattr(m, f"token{i}").expand(len(x), -1, -1) for i in range(1 if read is None else 2)]
    x = torch.cat([*own, x], dim=1) + m.all_positions
    q, k, v = packed(m, m.norm1(x), 3)
    x = x + m.project(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
    x = x + m.mlp(m.norm2(x))
    return m.head(x[:, 0]) if read is None else x[:, read]


def registers(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Learned tokens before and behind, positions added before them, and a mean over the others."""
    before, *behind = (getattr(m, f"token{i}").expand(len(x), -1, -1) for i in range(3))
    x = torch.cat([before, x + m.positions, *behind], dim=1)
    q, k, v = packed(m, m.norm1(x), 2)
    x = x + m.project(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
    return m.head(x[:, 1:-2].mean(1))


def linear_attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Keys meet values first (Katharopoulos et al., arXiv 2006.16236), without the sum that divides."""
    q, k, v = packed(m, x, 3, m.q)
    return m.o((q.relu() @ (k.relu().transpose(-2, -1) @ v / 15)).transpose(1, 2).flatten(2))


def features_attend(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention of features to features (El-Nouby et al., arXiv 2106.09681), with no norm of queries and keys."""
    q, k, v = (part.transpose(-2, -1) for part in packed(m, x, 2, m.q))
    return m.o(((q @ k.transpose(-2, -1) * 0.1).softmax(-1) @ v).permute(0, 3, 1, 2).reshape(x.shape))


def channels_first(m: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Attention of maps that stay (1, channels, places), and give a map."""
    q, k, v = m.q(x).mT.chunk(3, 1)
    scores = q.mT @ k * 0.3
    shares = (scores if bias is None else scores + bias).softmax(-1)
    return m.b((v @ shares.transpose(-2, -1)).view(len(x), 12, 3, 5))


def by_einsum(m: Any, x: torch.Tensor, inside: bool = False) -> torch.Tensor:
    """Attention by einsum, with axes (heads, tokens, features), or (tokens, heads, features)."""
    q, k, v = packed(m, x, 3, m.q)
    if not inside:
        shares = torch.einsum("bhid,bhjd->bhij", q, k * 0.5).softmax(dim=-1)
        return m.o(torch.einsum("bhij,bhjd->bhid", shares, v).transpose(1, 2).flatten(2))
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    shares = torch.einsum("b n h d, b m h d -> b h n m", q, k).div(2).softmax(dim=-1)
    return m.o(torch.einsum("bhnm,bmhd->bnhd", shares, v).flatten(2))


def weighed_twice(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Weights of an attention that are changed before they meet the values."""
    q, k, v = packed(m, x, 3, m.q)
    shares = (q @ k.mT * 0.3).softmax(-1)
    return (shares * shares @ v).transpose(1, 2).reshape(x.shape)


def seen(m: Any, x: torch.Tensor, mask: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
    """Three heads of one layer, by torch's function."""
    q, k, v = packed(m, x, 3)
    return m.o(functional.scaled_dot_product_attention(q, k, v, mask, **settings).transpose(1, 2).flatten(2))


def by_hand(m: Any, x: torch.Tensor, scores: Block) -> torch.Tensor:
    """Three heads of one layer, whose scores a function changes."""
    q, k, v = packed(m, x, 3)
    return m.o((scores(q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


def turned_scores(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Keys times queries and values times shares, each with its axes exchanged."""
    q, k, v = packed(m, x, 3)
    shares = ((k @ q.mT * 0.5).mT + m.b).softmax(-1).mT
    return m.o((v.mT @ shares).permute(0, 3, 1, 2).flatten(2))


def layers_and(*shape: int) -> dict[str, Any]:
    return {"qkv": nn.Linear(12, 36), "o": nn.Linear(12, 8), "b": nn.Parameter(torch.zeros(shape))}


AFTER, NEVER = torch.ones(15, 15).triu(1) > 0, float("-inf")  # keys that come after a query
ATTENTION = {"a": nn.MultiheadAttention(12, 3, batch_first=True)}
APART = torch.arange(15)[:, None] - torch.arange(15) + 14  # which of a head's 29 numbers a pair has, as in LeViT
MASKED: dict[str, tuple[Callable[[Any, torch.Tensor], Any], dict[str, Any], int]] = {  # and for how many heads the bias is held
    "causal": (lambda m, x: seen(m, x, is_causal=True), layers_and(), 1),
    "pairs": (lambda m, x: seen(m, x, ~AFTER), layers_and(), 1),
    "heads": (lambda m, x: seen(m, x, m.b), layers_and(3, 15, 15), 3), "keys": (lambda m, x: seen(m, x, m.b), layers_and(15), 1),
    "queries, which changes nothing": (lambda m, x: seen(m, x, m.b), layers_and(15, 1), 0),
    "bias": (lambda m, x: by_hand(m, x, lambda s: s * 0.5 + m.b), layers_and(1, 3, 15, 15), 3),
    "bias, scaled": (lambda m, x: by_hand(m, x, lambda s: (m.b + s) * 0.5), layers_and(3, 15, 15), 3),
    "bias by distance": (lambda m, x: by_hand(m, x, lambda s: s / 2 + m.b[:, APART]), layers_and(3, 29), 3),
    "bias taken off": (lambda m, x: by_hand(m, x, lambda s: s.masked_fill(AFTER, -1e9) - m.b), layers_and(3, 1, 15), 3),
    "filled": (lambda m, x: by_hand(m, x, lambda s: s.masked_fill(AFTER, NEVER) / 2), layers_and(), 1),
    "where": (lambda m, x: by_hand(m, x, lambda s: torch.where(AFTER, NEVER, s) / 2), layers_and(), 1),
    "where not": (lambda m, x: by_hand(m, x, lambda s: torch.where(~AFTER, s, -1e9) / 2), layers_and(), 1),
    "multi-head": (lambda m, x: m.a(x, x, x, attn_mask=AFTER)[0], ATTENTION, 1),
    "multi-head, alone": (lambda m, x: m.a(x, x, x, attn_mask=AFTER, need_weights=False)[0], ATTENTION, 1),
    "multi-head, numbers": (
        lambda m, x: m.a(x, x, x, attn_mask=m.b)[0], {**ATTENTION, "b": nn.Parameter(torch.zeros(15, 15))}, 1),
    "encoder": (lambda m, x: m.a(x, src_mask=AFTER), {"a": encoder()}, 1),
    "encoder of two": (
        lambda m, x: m.a(x, mask=AFTER, is_causal=False),
        {"a": nn.TransformerEncoder(encoder(), 2, enable_nested_tensor=False)}, 1),
    "turned": (turned_scores, layers_and(3, 15, 15), 3),
}  # fmt: skip
NETWORKS: dict[str, tuple[Callable[[Any, torch.Tensor], Any], dict[str, Any]]] = {
    "multi-head attention": (lambda m, x: m.a(x, x, x)[0], {"a": nn.MultiheadAttention(12, 3, batch_first=True)}),
    "without its weights": (
        lambda m, x: m.a(x, x, x, need_weights=False)[0], {"a": nn.MultiheadAttention(12, 2, bias=False, batch_first=True)}),
    "encoder": (lambda m, x: m.a(x), {"a": encoder()}), "norm first": (lambda m, x: m.a(x), {"a": encoder(norm_first=True)}),
    "gelu": (lambda m, x: m.a(x), {"a": encoder(activation="gelu", norm_first=True)}),
    "gelu, norm last": (lambda m, x: m.a(x), {"a": encoder(activation="gelu")}),
    "two layers": (lambda m, x: m.a(x), {"a": nn.TransformerEncoder(encoder(), 2, enable_nested_tensor=False)}),
    "vit": (vit, vit_layers()), "vit, not fused": (lambda m, x: vit(m, x, False), vit_layers()),
    "queries apart": (halves, {"q": nn.Linear(12, 12), "kv": nn.Linear(12, 24)}),
    "no layers": (lambda m, x: functional.scaled_dot_product_attention(x[None], x[None], x[None], scale=0.1)[0], {}),
    "back to a map": (
        lambda m, x: m.b(m.a(x).transpose(1, 2).reshape(len(x), 12, 3, 5)), {"a": nn.Linear(12, 12), "b": nn.Conv2d(12, 4, 3)}),
    "channels last": (
        lambda m, x: m.b(m.a(x.view(len(x), 3, 5, 12)).permute(0, 3, 1, 2)), {"a": nn.LayerNorm(12), "b": nn.Conv2d(12, 4, 3)}),
    "norm of the mean": (lambda m, x: m.b(m.a(x.mean(1))), {"a": nn.LayerNorm(12), "b": nn.Linear(12, 4)}),
    "features side by side": (
        lambda m, x: torch.cat([m.a(x), x, m.b(x)[:, :, 2:]], -1), {"a": nn.Linear(12, 5), "b": nn.Linear(12, 4)}),
    "queries of one layer, keys of another": (
        lambda m, x: functional.scaled_dot_product_attention(*torch.cat([m.a(x), m.b(x)], -1)[None].chunk(3, -1))[0],
        {"a": nn.Linear(12, 12), "b": nn.Linear(12, 24)}),
    "one token": (lambda m, x: m.a(x[:, 7]), {"a": nn.Linear(12, 4)}),
    "a product": (lambda m, x: x @ x.transpose(1, 2), {}),
    "weights alone": (lambda m, x: x @ m.a, {"a": nn.Parameter(torch.zeros(12, 4))}),
    "what attention weighs": (lambda m, x: m.a(x, x, x)[1], {"a": nn.MultiheadAttention(12, 1, batch_first=True)}),
    "no softmax": (lambda m, x: m.a((x @ x.mT / 15).sigmoid() @ x), {"a": nn.Linear(12, 4)}),
    "linear attention": (linear_attention, {"q": nn.Linear(12, 36), "o": nn.Linear(12, 8)}),
    "features attend": (features_attend, {"q": nn.Linear(12, 36), "o": nn.Linear(12, 12)}),
    "weighed twice": (weighed_twice, {"q": nn.Linear(12, 36)}),
    "channels first": (channels_first, {"q": nn.Linear(12, 36), "b": nn.Conv2d(12, 4, 3)}),
    "channels first, biased": (
        lambda m, x: channels_first(m, x, m.bias),
        {"q": nn.Linear(12, 36), "b": nn.Conv2d(12, 4, 3), "bias": nn.Parameter(torch.zeros(15, 15))}),
    "of every other row": (
        lambda m, x: m.a(x.mT.reshape(len(x), 2, 6, 15)[:, :, :3].relu().mT @ x[:, None, :3, :3].mT), {"a": nn.ReLU()}),
    "einsum": (by_einsum, {"q": nn.Linear(12, 36), "o": nn.Linear(12, 4)}),
    "einsum, heads inside": (lambda m, x: by_einsum(m, x, True), {"q": nn.Linear(12, 36), "o": nn.Linear(12, 4)}),
    "einsum with weights": (
        lambda m, x: torch.einsum("...j,kj->...k", torch.einsum("b n c, c z", x, m.a), m.b),
        {"a": nn.Parameter(torch.zeros(12, 8)), "b": nn.Parameter(torch.zeros(5, 8))}),
    "one token of many": (lambda m, x: m.a(x)[:, 3], {"a": nn.Linear(12, 4)}),
    "class token": (class_token, vit_layers() | tokens(1) | {"head": nn.Linear(12, 4)}),
    "distilled": (
        lambda m, x: (m.head(class_token(m, x, 0)) + m.head(class_token(m, x, 1))) / 2,
        vit_layers() | tokens(2) | {"head": nn.Linear(12, 4)}),
    "registers": (registers, vit_layers() | tokens(3) | {"head": nn.Linear(12, 4)}),
    "gated": (
        lambda m, x: m.b(functional.silu((y := m.a(x).chunk(2, -1))[0]) * y[1]), {"a": nn.Linear(12, 16), "b": nn.Linear(8, 4)}),
    "softmax": (lambda m, x: m.a(x).softmax(-1), {"a": nn.Linear(12, 4)}),
    "constants": (lambda m, x: torch.relu(2 * m.a(x) + m.b), {"a": nn.Linear(12, 4), "b": nn.Parameter(torch.zeros(4))}),
}  # fmt: skip


NETWORKS |= {f"mask, {case}": network for case, (*network, _) in MASKED.items()}  # type: ignore[misc]


def exported(case: str) -> Graph:
    forward, layers = NETWORKS[case]
    return export(Tokens(forward, **layers), SHAPE)


@pytest.mark.parametrize("case", NETWORKS)
def test_networks_of_tokens(case: str) -> None:
    """In float as torch, which export checks; in int8 within 25 dB of that, an error of 6 % of the root of the mean square."""
    graph, images = exported(case), np.random.default_rng(0).normal(size=(16, *SHAPE)).astype(np.float32)
    int8, expected = quantize(graph, images), interpret.run(graph, images.transpose(0, 2, 3, 1))
    quant, stored = int8.output.quant, interpret.run(int8, interpret.quantize_input(int8, images))
    error = (stored.astype(np.float64) - quant.zero_point) * quant.scale[0] - expected
    assert (expected**2).mean() > 300 * (error**2).mean()


@pytest.mark.parametrize("case", ["channels first", "einsum", "einsum, heads inside"])
def test_attention_in_other_words_is_one_operator(case: str) -> None:
    assert [type(op) for op in exported(case).ops] == [Conv, Conv, Conv, Attention, Conv]


@pytest.mark.parametrize("case", MASKED)
def test_masks_and_biases_are_constants_of_attention(case: str) -> None:
    """Once for all heads where these are alike; where keys are masked, no query sees one that comes after it."""
    graph = exported(f"mask, {case}")
    assert not any(isinstance(op, MatMul | AddConstant) for op in graph.ops)
    for op in (op for op in graph.ops if isinstance(op, Attention)):
        bias = graph.constants[op.bias] if op.bias else np.zeros((0, 15, 15))
        assert bias.shape == (MASKED[case][2], 15, 15)
        assert all((np.isinf(rows) == AFTER.numpy()).all() for rows in bias if np.isinf(rows).any())


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 24))])
def test_drawn_masks_and_biases(seed: int) -> None:
    """Of any shape that broadcasts, pairs or numbers small and large: in float as torch, which export checks; in C as in int8."""
    rng = np.random.default_rng(seed)
    heads, depth, size = int(rng.integers(1, 9)), int(rng.integers(1, 8)), ((1, 1), (3, 4), (7, 1), (1, 50), (1, 197))[seed % 5]
    width, tokens = heads * depth, size[0] * size[1]
    shape = [int(most if rng.integers(2) else 1) for most in (1, heads, tokens, tokens)][int(rng.integers(3)) :]
    numbers = torch.from_numpy(rng.normal(0, rng.choice((0.1, 2.0, 20.0)), shape).astype(np.float32))
    pairs = torch.from_numpy((rng.random(shape) < 0.5) | (np.arange(shape[-1]) == 0))
    mask = [numbers, pairs, numbers.masked_fill(~pairs, NEVER)][seed % 3]

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (heads, depth)).transpose(1, 2) for part in m.a(x).chunk(3, -1))
        return functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

    images = rng.normal(size=(4, width, *size)).astype(np.float32)
    graph = export(Tokens(forward, a=nn.Linear(width, 3 * width)), (width, *size))
    assert measure(compile(quantize(graph, images)), images, target="host").bit_exact


def test_a_bias_of_a_product_is_an_added_constant() -> None:
    graph = export(Tokens(lambda m, x: (x @ x.mT + m.b).relu(), b=nn.Parameter(torch.zeros(15, 15))), SHAPE)
    assert [type(op) for op in graph.ops[:2]] == [MatMul, AddConstant]


def test_nothing_is_moved() -> None:
    """A block has no operator that moves values: projections of one layer come apart, factors of a norm go into what follows."""
    ops = exported("vit").ops
    assert not [op for op in ops if isinstance(op, (Rearrange, DepthwiseConv))]
    assert [type(op) for op in ops[:6]] == [AddConstant, LayerNorm, Conv, Conv, Conv, Attention]


@pytest.mark.parametrize("settings", [(12, 3, "kernel"), (12, 3, "random"), (5, 2, "random"), (4, 2, "random", "zero")])
def test_trec_over_tokens(settings: tuple[Any, ...]) -> None:
    """As torch computes it, which export checks, factors of norms and all; in C as in the interpreter, by both kernel sets."""
    net = Tokens(vit, **vit_layers()).eval()
    convert(net, {path: Settings(*settings) for path in ("qkv", "project", "mlp.0", "mlp.3")})
    graph, images = export(net, SHAPE), np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)
    assert sum(isinstance(op, TrecConv) for op in graph.ops) == 4
    assert bool([op for op in graph.ops if isinstance(op, DepthwiseConv)]) == (settings[3:] == ("zero",))
    for kernels in ("fast", "reference"):
        model = compile(quantize(graph, images), schedule=Layerwise(20_000, "board"), kernels=kernels)
        assert measure(model, images, target="host").bit_exact
        names = {form.name for form in model.steps.form_of_operator.values()}
        assert ("attention_shared" in names) == (kernels == "fast" and settings[0] == 12 and settings[2] == "random")


def test_trec_of_queries_alone() -> None:
    """Keys and values stay exact and in layers of their own; nothing is moved, and the attention computes equal queries once."""
    net = Tokens(vit, **vit_layers()).eval()
    convert(net, {"qkv": Settings(12, 2, "random", outputs=12)})
    graph, images = export(net, SHAPE), np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)
    assert [type(op) for op in graph.ops[:6]] == [AddConstant, LayerNorm, TrecConv, Conv, Conv, Attention]
    model = compile(quantize(graph, images), schedule=Layerwise(20_000, "board"))
    assert measure(model, images, target="host").bit_exact
    assert "attention_shared" in {form.name for form in model.steps.form_of_operator.values()}


def test_a_norm_that_is_read_again_keeps_its_factors() -> None:
    assert sum(isinstance(op, DepthwiseConv) for op in exported("encoder").ops) == 2


REFUSED: tuple[tuple[Callable[[Any, torch.Tensor], Any], str], ...] = (
    (lambda m, x: functional.scaled_dot_product_attention(x, x, x, x @ x.mT), "a mask that is computed"),
    (lambda m, x: functional.scaled_dot_product_attention(x, x, x, AFTER), "1 queries see no key"),
    (lambda m, x: (x @ x.mT).masked_fill(AFTER, NEVER).softmax(-1), "a mask of scores that no attention"),
    (lambda m, x: (x @ x.mT).masked_fill(AFTER, 0).softmax(-1) @ x, "operator masked_fill"),
    (lambda m, x: torch.baddbmm(x @ x.mT, x, x.mT), "baddbmm of three"),
    (lambda m, x: torch.ones(4, 15) @ x, "nn.Linear"), (lambda m, x: torch.cat([x, x], 1), "cat along dimension 1"),
    (lambda m, x: m.b(x.transpose(1, 2)), "over the last dimension|Linear on a tensor"),
    (lambda m, x: m.c(x[:, ::2]), "over the last dimension"), (lambda m, x: x.mean(2), r"mean over dimensions \[2\]"),
    (lambda m, x: x.softmax(1), "softmax over dimension 1"), (lambda m, x: x + x.flip(1), "operator flip"),
    (lambda m, x: x / x, "div of two"),
    (lambda m, x: functional.layer_norm(x, (15, 12)), "layer_norm"),
    (lambda m, x: x.view(1, 3, 5, 12).transpose(1, 2).reshape(1, 15, 12) + x, "lie differently"),
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_refusals_say_what_would_work(number: int) -> None:
    forward, words = REFUSED[number]
    layers = {"a": nn.MultiheadAttention(12, 3, batch_first=True), "b": nn.Linear(15, 3), "c": nn.Linear(12, 3)}
    with pytest.raises(ValueError, match=words):
        export(Tokens(forward, **layers), SHAPE)
