"""TREC as a trainable layer: `TRECConv2d` takes the place of an `nn.Conv2d` and multiplies centroids instead of windows;
`TRECLinear` does the same with tokens.

Rows are output pixels, columns run over (ky, kx, channel) as in the int8 weights. Blocks of `sub_length` columns are
clustered by the signs of `hash_bits` projections, each cluster is replaced by its mean, and the products with the means
are added over the blocks. Clusters are those of one image (`scope` "image", what a board computes) or of the whole batch.

Source: Guan et al., TREC, NeurIPS 2022, and Liu et al., ASPLOS 2023 (kernel reuse). Mean thresholds, exact channels and
the gradient of "learned" and "kernel_learned": ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tinyredux.graph import MOST_BITS

HASHES = ("kernel", "kernel_learned", "learned", "paper", "pca", "random")
THRESHOLDS = ("mean", "zero")
SCOPES = ("image", "batch")
SOFTNESS = 0.5  # of a learned bit, in standard deviations of its projection


@dataclass(frozen=True)
class Settings:
    """TREC for one layer: columns in a block, bits of the hash, where its vectors come from, its threshold; and how many output
    channels are computed from means, the first ones (0: all), such as the queries of a layer that has keys and values behind."""

    sub_length: int
    hash_bits: int
    hash: str = "kernel"
    threshold: str = "mean"
    outputs: int = 0

    def __post_init__(self) -> None:
        """Rejects what no layer can have; what one layer cannot have, TRECConv2d rejects."""
        for name, value, allowed in (("hash", self.hash, HASHES), ("threshold", self.threshold, THRESHOLDS)):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
        if self.outputs < 0:
            raise ValueError(f"outputs is {self.outputs}, expected 0 for all, or how many of the first")
        if self.sub_length < 1 or not 1 <= self.hash_bits <= MOST_BITS:
            raise ValueError(
                f"sub_length is {self.sub_length} and hash_bits {self.hash_bits}, expected at least 1, and 1 to {MOST_BITS}"
            )


Piece = tuple[int, slice, tuple[slice, ...]]  # block, columns inside it, slices of the padded maps (B, H, W, C)
PAPER_ALPHA, PAPER_K = 1e4, 5.0  # steepness and width of the published relaxation


class _Hashing(nn.Module):
    """What both layers share: the settings, the hash's own vectors, and the forward pass over rows of columns."""

    weight: Any
    bias: Any
    vectors: torch.Tensor | None
    place: tuple[list[int], list[int]]  # stride and padding

    def _take(self, layer: nn.Conv2d | nn.Linear, settings: Settings, scope: str) -> None:
        """Takes the weights of `layer`; raises ValueError for what TREC cannot do."""
        self.sub_length, self.hash_bits, self.hash, self.threshold, outputs = astuple(settings)
        self.outputs = outputs or len(layer.weight)
        for name, value, most in (
            ("sub_length", self.sub_length, layer.weight[0].numel()), ("outputs", self.outputs, len(layer.weight)),
            ("hash_bits", self.hash_bits, self.outputs),
        ):  # fmt: skip
            if value > most:
                raise ValueError(f"TREC: {name} is {value}, expected 1 to {most}")
        if scope not in SCOPES:
            raise ValueError(f"TREC: scope is {scope!r}, expected one of {', '.join(SCOPES)}")
        self.scope, self.kept_share = scope, torch.ones(())  # clusters / rows of the last forward pass, for the eye alone
        if self.hash in ("learned", "paper"):
            self.vectors = nn.Parameter(torch.randn(1, self.sub_length, self.hash_bits))
        else:
            frozen = self.hash in ("random", "pca")
            self.register_buffer("vectors", torch.randn(1, self.sub_length, self.hash_bits) if frozen else None)
        self.to(layer.weight.device, layer.weight.dtype).train(layer.training)
        self.load_state_dict(layer.state_dict(), strict=False)  # all but the hash vectors

    def maps_of(self, given: torch.Tensor) -> torch.Tensor:
        """Returns what the layer is given as maps (B, in_channels, H, W)."""
        return given

    def _shared(self, maps: torch.Tensor) -> torch.Tensor:
        """Returns (B, outputs, out_h, out_w), the channels that are computed from means, for maps (B, in_channels, H, W)."""
        planes = (self.weight if self.weight.ndim == 4 else self.weight[..., None, None])[: self.outputs]
        bias = None if self.bias is None else self.bias[: self.outputs]
        weights, settings = (maps, planes, bias, self.vectors), (self.sub_length, self.hash_bits, self.threshold, self.scope)
        if torch.compiler.is_exporting():
            exported: torch.Tensor = trec_conv(*weights, *self.place, *settings)
            return exported
        stride, padding = self.place
        result, self.kept_share = _forward(*weights, stride, padding, *settings, self.hash if self.training else "frozen")
        return result

    @torch.no_grad()
    def fit_pca(self, given: torch.Tensor) -> None:
        """Sets `vectors` to the first principal axes of the sub-vectors of what the layer is given, centred by image."""
        if self.vectors is None:
            raise ValueError(f"TREC: fit_pca on a layer with hash {self.hash!r}, which has no vectors of its own")
        maps, size = self.maps_of(given), list(self.weight.shape[2:]) or [1, 1]
        rows: torch.Tensor = _Rows.apply(maps.float(), size, *self.place, self.sub_length)  # type: ignore[no-untyped-call]
        rows = (rows - rows.mean(dim=2, keepdim=True)).reshape(-1, self.sub_length)
        axes = torch.linalg.eigh(rows.T @ rows)[1].flip(1)[:, : self.hash_bits]
        self.vectors.zero_()[0, :, : axes.shape[1]] = axes

    def _exact(self) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Returns weight and bias of the channels that are computed exactly, None where there is none."""
        bias = None if self.bias is None else self.bias[self.outputs :]
        return (self.weight[self.outputs :], bias) if self.outputs < len(self.weight) else None

    def extra_repr(self) -> str:
        """Returns the exact layer's line with TREC's settings."""
        dense = super().extra_repr()
        return (
            f"{dense}, sub_length={self.sub_length}, hash_bits={self.hash_bits}, hash={self.hash}, "
            f"threshold={self.threshold}, scope={self.scope}" + f", outputs={self.outputs}" * (self.outputs < len(self.weight))
        )


class TRECConv2d(_Hashing, nn.Conv2d):
    """A convolution on centroids. State dict: `weight` and `bias` as before, and `vectors` where the hash has its own.

    Hashes: "kernel" takes the first H filters themselves, whose channels come out exact; "kernel_learned" adds the
    gradient of "learned" to them; "learned", "paper", "random" and "pca" have `vectors` (1, L, H), one matrix for all blocks,
    trained by our gradient, trained by the published one, frozen, or frozen at the principal axes of `fit_pca`.
    """

    def __init__(self, conv: nn.Conv2d, settings: Settings, scope: str = "image") -> None:
        """Takes the place and the weights of `conv`; raises ValueError for what TREC cannot do."""
        if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(f"TREC: cannot replace {conv}; expected one group, no dilation and zero padding given in numbers")
        kernel, stride, padding = ((size[0], size[1]) for size in (conv.kernel_size, conv.stride, conv.padding))
        super().__init__(conv.in_channels, conv.out_channels, kernel, stride, padding, bias=conv.bias is not None)
        self.place = list(stride), list(padding)
        self._take(conv, settings, scope)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Returns (B, out_channels, out_h, out_w) for maps (B, in_channels, H, W); or one image without B."""
        if maps.ndim == 3:
            return self.forward(maps[None])[0]
        exact, found = self._exact(), self._shared(maps)
        return torch.cat([found, functional.conv2d(maps, *exact, *self.place).to(found.dtype)], 1) if exact else found


class TRECLinear(_Hashing, nn.Linear):
    """A linear layer on the centroids of tokens, as `TRECConv2d`. With blocks as long as a token it is token merging inside a
    layer: tokens of one code share one product, and none is lost.

    Source of token merging: Bolya et al., arXiv 2210.09461, which keeps one token for several from there on.
    """

    def __init__(self, linear: nn.Linear, settings: Settings, scope: str = "image") -> None:
        """Takes the place and the weights of `linear`; raises ValueError for what TREC cannot do."""
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.place = [1, 1], [0, 0]
        self._take(linear, settings, scope)

    def maps_of(self, given: torch.Tensor) -> torch.Tensor:
        """Returns tokens (B, tokens, in_features) as maps (B, in_features, tokens, 1)."""
        return given.transpose(1, 2)[..., None]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns (B, tokens, out_features) for tokens (B, tokens, in_features). Raises ValueError for single vectors."""
        if tokens.ndim != 3:
            raise ValueError(f"TREC: a linear layer reads {tuple(tokens.shape)}, expected tokens (batch, tokens, features)")
        exact, found = self._exact(), self._shared(self.maps_of(tokens))[..., 0].transpose(1, 2)
        return torch.cat([found, functional.linear(tokens, *exact).to(found.dtype)], -1) if exact else found


Layer = TRECConv2d | TRECLinear


def convert(net: nn.Module, table: Mapping[str, Settings]) -> list[Layer]:
    """Replaces the convolutions and linear layers that `table` names by their module paths, in place, and returns the new ones.

    Raises ValueError for a path that no such layer has, and for settings that do not fit it.
    """
    able = {path: part for path, part in net.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))}
    layers = list[Layer]()
    for path, settings in table.items():
        if path not in able:
            raise ValueError(f"the network has no convolution or linear layer {path!r} for TREC; it has {', '.join(able)}")
        part = able[path]
        try:
            layers.append(TRECConv2d(part, settings) if isinstance(part, nn.Conv2d) else TRECLinear(part, settings))
        except ValueError as failure:
            raise ValueError(f"layer {path!r}: {failure}") from None
        parent, _, leaf = path.rpartition(".")
        setattr(net.get_submodule(parent), leaf, layers[-1])
    return layers


@torch.library.custom_op("tinyredux::trec_conv", mutates_args=())
def trec_conv(
    maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, vectors: torch.Tensor | None, stride: list[int],
    padding: list[int], sub_length: int, hash_bits: int, threshold: str, scope: str,
) -> torch.Tensor:  # fmt: skip
    """Returns the layer's output as one operator, which `export` turns into `graph.TrecConv`; `vectors` None: kernel reuse."""
    return _forward(maps, weight, bias, vectors, stride, padding, sub_length, hash_bits, threshold, scope, "frozen")[0]


@trec_conv.register_fake
def _(maps: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
    bias, _, stride, padding, *_ = rest
    return functional.conv2d(maps, weight, bias, stride, padding)


def _forward(
    maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, vectors: torch.Tensor | None, stride: list[int],
    padding: list[int], sub_length: int, hash_bits: int, threshold: str, scope: str, kind: str,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Returns the output (B, M, out_h, out_w) and the share of rows kept; `kind` picks the gradient of the hash.

    Autograd through centroids of fixed clusters is the published backward pass: every member of a cluster gets the
    mean of the members' gradients times the weights, and weights get centroids times summed gradients.
    """
    device = "cpu" if maps.device.type == "meta" else maps.device.type
    if torch.is_autocast_enabled(device):
        maps = maps.to(torch.get_autocast_dtype(device))
    batch, outputs, size = len(maps), len(weight), list(weight.shape[2:])
    rows: torch.Tensor = _Rows.apply(maps, size, stride, padding, sub_length)  # type: ignore[no-untyped-call]
    filters = weight.permute(2, 3, 1, 0).reshape(-1, outputs)
    filters = functional.pad(filters, (0, 0, 0, len(rows) * sub_length - len(filters)))
    filters = filters.reshape(len(rows), sub_length, outputs).to(rows.dtype)
    if scope == "batch":
        rows = rows.reshape(len(rows), 1, -1, sub_length)
    total, kept = _sum_over_blocks(rows, filters, vectors, hash_bits, threshold, kind)
    high, wide = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip(maps.shape[2:], padding, size, stride, strict=True))
    total = total.reshape(batch, high, wide, outputs).permute(0, 3, 1, 2)
    if vectors is None:
        exact = functional.conv2d(maps, weight[:hash_bits].to(maps.dtype), None, stride, padding)
        total = torch.cat([exact, total[:, hash_bits:]], dim=1)
    return total if bias is None else total + bias.to(total.dtype)[:, None, None], kept


def _sum_over_blocks(
    rows: torch.Tensor, filters: torch.Tensor, vectors: torch.Tensor | None, hash_bits: int, threshold: str, kind: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns sums (B, N, M) of the centroids' products over the blocks, and the share of rows kept.

    rows: (blocks, B, N, L), filters: (blocks, L, M), vectors: (1, L, H) or None for the first `hash_bits` filters.
    """
    blocks, batch, count, length = rows.shape
    hashes = filters[:, :, :hash_bits] if vectors is None else vectors.to(rows.dtype)
    trained = kind in ("learned", "kernel_learned", "paper")
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        projections = (rows.detach().reshape(blocks, -1, length) @ hashes).reshape(blocks, batch, count, hash_bits)
    slots, buckets = hash_ids(projections.detach(), threshold), 1 << hash_bits
    if buckets > count:  # a row's bucket is then the first row with its id
        slots, buckets = (slots[..., :, None] == slots[..., None, :]).to(torch.uint8).argmax(dim=3), count
    member = (slots[..., None] == torch.arange(buckets, device=rows.device)).to(rows.dtype)  # (blocks, B, N, C)
    sizes = member.sum(dim=2, dtype=torch.float32)
    centroids = (member.transpose(2, 3) @ rows) * (1 / sizes.clamp(min=1))[..., None].to(rows.dtype)
    learns = trained and buckets == 1 << hash_bits
    if learns and kind == "paper":
        moved = _steep_members(projections, slots).transpose(2, 3) @ rows.detach().float()
        centroids = centroids + _gradient_of(moved / sizes.clamp(min=1)[..., None] ** 2).to(rows.dtype)
    elif learns:
        member = member + _gradient_of(_soft_members(projections, threshold) * (sizes > 0)[:, :, None]).to(rows.dtype)
    products = (centroids.reshape(blocks, -1, length) @ filters).reshape(blocks, batch, buckets, -1)
    kept = (sizes > 0).float().mean() * buckets / count
    assign = member.permute(1, 2, 0, 3).reshape(batch, count, -1)
    return assign @ products.transpose(0, 1).reshape(batch, blocks * buckets, -1), kept


def _gradient_of(soft: torch.Tensor) -> torch.Tensor:
    """Returns zeros whose gradient goes to `soft`: added to hard values, they are learned as if the soft ones had been used."""
    return soft - soft.detach()


def hash_ids(projections: torch.Tensor, threshold: str) -> torch.Tensor:
    """Returns the ids (blocks, B, N): bit h is set where projection h is above 0, or above its mean over the rows."""
    if threshold == "mean":
        projections = projections.float() - projections.float().mean(dim=2, keepdim=True)
    places = 1 << torch.arange(projections.shape[3], device=projections.device)
    return ((projections > 0) * places).sum(dim=3)


def _soft_members(projections: torch.Tensor, threshold: str) -> torch.Tensor:
    """Returns the probability (blocks, B, N, 2^H) of each id when every bit is a logistic draw around its threshold."""
    centred = projections.float()
    spread = centred.detach().std(dim=2, keepdim=True).clamp(min=1e-6)
    if threshold == "mean":
        centred = centred - centred.mean(dim=2, keepdim=True)
    ones = torch.sigmoid(centred / (SOFTNESS * spread))
    soft = torch.ones_like(ones[..., :1])
    for h in range(ones.shape[3]):
        bit = ones[..., h : h + 1]
        soft = torch.cat([soft * (1 - bit), soft * bit], dim=3)
    return soft


def _steep_members(projections: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Returns the published relaxation of (blocks, B, N, 2^H) memberships. Source: the TREC artifact's backward pass.

    The code of a row, read as a number, is a sum of steep sigmoids; it belongs to cluster j by a narrow Gaussian of code ratio
    minus one.
    """
    buckets = 1 << projections.shape[3]
    places, codes = 1 << torch.arange(projections.shape[3]), torch.arange(1, buckets + 1)
    steep = torch.sigmoid(PAPER_ALPHA * (projections.float() - 0.1 / buckets))
    code = slots + 1 + _gradient_of((steep * places.to(slots.device)).sum(dim=3))
    ratio = code[..., None] / codes.to(slots.device) - 1
    return torch.exp(-(ratio**2) / (2 * (1 / buckets / PAPER_K) ** 2))


class _Rows(torch.autograd.Function):
    """The sub-vectors of maps, and their gradients added up again."""

    @staticmethod
    def forward(
        ctx: Any, maps: torch.Tensor, kernel: list[int], stride: list[int], padding: list[int], sub_length: int
    ) -> torch.Tensor:
        """Returns (blocks, B, N, L) of maps (B, C, H, W), columns in the order (ky, kx, channel); zeros fill the last block."""
        padded = functional.pad(maps.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
        ctx.pieces = _pieces(padded.shape, kernel, stride, sub_length)
        ctx.shape, ctx.padding, ctx.dtype = padded.shape, padding, padded.dtype
        high, wide = ((size - k) // s + 1 for size, k, s in zip(padded.shape[1:3], kernel, stride, strict=True))
        columns = kernel[0] * kernel[1] * padded.shape[3]
        shape = (-(-columns // sub_length), len(maps), high, wide, sub_length)
        rows = padded.new_empty(shape) if columns % sub_length == 0 else padded.new_zeros(shape)
        for block, inside, window in ctx.pieces:
            rows[(block, ..., inside)] = padded[window]
        return rows.flatten(2, 3)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        """Returns the gradient of the maps."""
        total = gradient.new_zeros(ctx.shape)
        window = ctx.pieces[0][2]
        high, wide = (len(range(*part.indices(size))) for part, size in zip(window[1:3], ctx.shape[1:3], strict=True))
        gradient = gradient.reshape(*gradient.shape[:2], high, wide, -1)
        for block, inside, window in ctx.pieces:
            total[window] += gradient[(block, ..., inside)]
        bottom, right = (size - pad for size, pad in zip(ctx.shape[1:3], ctx.padding, strict=True))
        return total[:, ctx.padding[0] : bottom, ctx.padding[1] : right].permute(0, 3, 1, 2), None, None, None, None


def _pieces(shape: torch.Size, kernel: list[int], stride: list[int], sub_length: int) -> list[Piece]:
    """Returns each run of channels in the windows."""
    pieces, channels = list[Piece](), shape[3]
    high, wide = ((size - k) // s * s + 1 for size, k, s in zip(shape[1:3], kernel, stride, strict=True))
    for tap in range(kernel[0] * kernel[1]):
        y, x = divmod(tap, kernel[1])
        first, end = tap * channels, (tap + 1) * channels
        while first < end:
            block, inside = divmod(first, sub_length)
            length = min(end - first, sub_length - inside)
            window = (slice(y, y + high, stride[0]), slice(x, x + wide, stride[1]))
            start = first - tap * channels
            pieces.append((block, slice(inside, inside + length), (slice(None), *window, slice(start, start + length))))
            first += length
    return pieces
