"""TREC as a torch layer: exact where nothing is merged, the published backward pass, its hashes, export, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tinyredux.trec import layer as trec_layer
from tinyredux.trec.layer import Settings, TRECConv2d, TRECLinear, convert


def made(hash: str = "kernel", sub_length: int = 5, bits: int = 3, scope: str = "image", bias: bool = True) -> TRECConv2d:
    """Returns a seeded layer with a stride, padding and a last block that is shorter."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias)
    return TRECConv2d(conv, Settings(sub_length, bits, hash), scope)


def reference(layer: TRECConv2d, maps: torch.Tensor) -> torch.Tensor:
    """Returns the layer's output by the definition: row by row, block by block, dictionaries for clusters."""
    weights = layer.weight.detach().permute(0, 2, 3, 1).reshape(layer.out_channels, -1)
    windows = nn.functional.unfold(maps, layer.kernel_size, padding=layer.padding, stride=layer.stride)
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    rows = windows.reshape(len(maps), layer.in_channels, taps, -1).permute(0, 3, 2, 1).flatten(2)
    groups = [rows.flatten(0, 1)] if layer.scope == "batch" else list(rows)
    out = []
    for group in groups:
        total = torch.zeros(len(group), layer.out_channels)
        for start in range(0, weights.shape[1], layer.sub_length):
            block = slice(start, start + layer.sub_length)
            sub = group[:, block]
            vectors = weights[: layer.hash_bits, block].T if layer.vectors is None else layer.vectors.detach()[0, : sub.shape[1]]
            projections = sub @ vectors
            level = projections.mean(0) if layer.threshold == "mean" else 0
            keys = [tuple(bits.tolist()) for bits in projections > level]
            for key in set(keys):
                members = [i for i, one in enumerate(keys) if one == key]
                total[members] += sub[members].mean(0) @ weights[:, block].T
        if layer.vectors is None:
            total[:, : layer.hash_bits] = group @ weights[: layer.hash_bits].T
        out.append(total)
    height = (maps.shape[2] + 2 * int(layer.padding[0]) - layer.kernel_size[0]) // layer.stride[0] + 1
    result = torch.cat(out).reshape(len(maps), height, -1, layer.out_channels).permute(0, 3, 1, 2)
    return result if layer.bias is None else result + layer.bias.detach()[:, None, None]


@pytest.mark.parametrize("hash", trec_layer.HASHES)
def test_forward_is_the_definition(hash: str) -> None:
    """Same outputs as the definition written out, in training and in evaluation, for every hash, threshold and scope."""
    maps = torch.randn(3, 4, 7, 7)
    for scope, threshold, mode in itertools.product(trec_layer.SCOPES, trec_layer.THRESHOLDS, (True, False)):
        layer = made(hash, scope=scope).train(mode)
        layer.threshold = threshold
        np.testing.assert_allclose(layer(maps).detach(), reference(layer, maps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hash", trec_layer.HASHES)
def test_one_row_per_cluster_is_a_convolution(hash: str) -> None:
    """A map of one pixel has one row: forward and backward are those of nn.Conv2d."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3)
    layer = TRECConv2d(conv, Settings(12, 4, hash)).train()
    maps = torch.randn(2, 4, 3, 3)
    for one in (conv, layer):
        one(maps).square().sum().backward()
    np.testing.assert_allclose(layer(maps).detach(), conv(maps).detach(), rtol=1e-4, atol=1e-5)
    assert conv.weight.grad is not None and layer.weight.grad is not None
    np.testing.assert_allclose(layer.weight.grad, conv.weight.grad, rtol=1e-4, atol=1e-5)
    assert float(layer.kept_share) == 1


def test_backward_is_the_published_one() -> None:
    """Weights get centroids times summed gradients; a row's gradient is the mean of its cluster's, times the weights."""
    torch.manual_seed(0)
    layer = TRECConv2d(nn.Conv2d(5, 7, 1, bias=False), Settings(5, 2, "random"))
    maps, upstream = torch.randn(1, 5, 4, 4, requires_grad=True), torch.randn(1, 7, 4, 4)
    layer(maps).backward(upstream)
    rows, sums = maps.detach()[0].flatten(1).T, upstream[0].flatten(1).T
    assert layer.vectors is not None and maps.grad is not None and layer.weight.grad is not None
    ids = trec_layer.hash_ids((rows @ layer.vectors[0])[None, None], "mean")[0, 0]
    weights = layer.weight.detach()[:, :, 0, 0]
    of_weights = torch.zeros_like(weights)
    for one in ids.unique():
        members = ids == one
        of_weights += torch.outer(sums[members].sum(0), rows[members].mean(0))
        expected = sums[members].mean(0) @ weights
        for found in maps.grad[0].flatten(1).T[members]:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad[:, :, 0, 0], of_weights, rtol=1e-4, atol=1e-5)


def test_paper_hash_gradient_is_the_formula() -> None:
    """The published relaxation, written out for one block with the constants of the artifact."""
    torch.manual_seed(0)
    layer = TRECConv2d(nn.Conv2d(5, 7, 1, bias=False), Settings(5, 3, "paper", "zero")).train()
    assert isinstance(layer.vectors, nn.Parameter)
    maps, upstream = 0.01 * torch.randn(1, 5, 16, 16), torch.randn(1, 7, 16, 16)
    layer(maps).backward(upstream)
    rows, gradient = maps[0].flatten(1).T.double(), upstream[0].flatten(1).T.double()
    weights, vectors = layer.weight.detach()[:, :, 0, 0].double(), layer.vectors.detach()[0].double()
    projections = rows @ vectors
    codes = ((projections > 0) * 2.0 ** torch.arange(3)).sum(1)
    sigma, expected = 2.0**-3 / 5, torch.zeros(5, 3, dtype=torch.float64)
    for i in range(256):
        pull = 0.0
        for code in codes.unique():
            members = codes == code
            ratio = (codes[i] + 1) / (code + 1) - 1
            worth = rows[i] @ (gradient[members].mean(0) @ weights) / members.sum()
            pull += float(-ratio / sigma**2 * torch.exp(-(ratio**2) / (2 * sigma**2)) * worth / (code + 1))
        steep = torch.sigmoid(1e4 * (projections[i] - 0.1 / 8))
        expected += torch.outer(rows[i], 1e4 * steep * (1 - steep) * pull * 2.0 ** torch.arange(3))
    assert layer.vectors.grad is not None and float(expected.abs().max()) > 0
    np.testing.assert_allclose(layer.vectors.grad[0], expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("hash", ["learned", "kernel_learned"])
def test_learned_hash_lowers_the_error_of_the_merge(hash: str) -> None:
    """With frozen products, following our gradient of the hash alone brings outputs closer to the convolution's."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 12, 3, padding=1, bias=False)
    layer = TRECConv2d(conv, Settings(6, 3, hash)).train()
    maps = torch.nn.functional.avg_pool2d(torch.rand(8, 6, 18, 18), 3, 1)
    target = conv(maps).detach()
    trained = layer.vectors if hash == "learned" else layer.weight
    assert isinstance(trained, nn.Parameter)
    optimizer = torch.optim.Adam([trained], 0.01)
    losses = []
    for _ in range(30):
        loss = (layer(maps) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_state_dict_keys_are_the_convolutions() -> None:
    """Kernel reuse adds no key, a hash of its own adds `vectors`; frozen ones are no parameters."""
    assert set(made("kernel").state_dict()) == set(made("kernel_learned").state_dict()) == {"weight", "bias"}
    for hash, trained in (("learned", True), ("paper", True), ("random", False), ("pca", False)):
        layer = made(hash)
        assert set(layer.state_dict()) == {"weight", "bias", "vectors"}
        assert ("vectors" in dict(layer.named_parameters())) == trained


def test_pca_directions_are_orthonormal_and_of_the_data() -> None:
    """`fit_pca` finds the axis along which the sub-vectors vary."""
    layer = TRECConv2d(nn.Conv2d(4, 8, 1), Settings(4, 2, "pca"))
    axis = torch.tensor([1.0, -1.0, 1.0, -1.0]) / 2
    maps = torch.randn(4, 1, 6, 6) * axis[:, None, None] + 0.01 * torch.randn(4, 4, 6, 6)
    layer.fit_pca(maps)
    assert layer.vectors is not None
    assert abs(float(layer.vectors[0, :, 0] @ axis)) > 0.99
    np.testing.assert_allclose(layer.vectors[0].T @ layer.vectors[0], np.eye(2), atol=1e-5)
    with pytest.raises(ValueError, match="no vectors of its own"):
        made("kernel").fit_pca(maps)


def test_export_keeps_the_layer_as_one_operator() -> None:
    """torch.export sees tinyredux::trec_conv with its settings, and the program computes what the layer does."""
    layer = made("random").eval()
    maps = torch.randn(1, 4, 7, 7)
    program = torch.export.export(layer, (maps,))
    (node,) = (node for node in program.graph.nodes if "trec_conv" in str(node.target))
    assert list(node.args[4:]) == [[2, 2], [1, 1], 5, 3, "mean", "image"]
    torch.testing.assert_close(program.module()(maps), layer(maps))


@pytest.mark.parametrize(
    ("conv", "settings", "message"),
    [
        ({"groups": 2}, (4, 2), "layer '0': TREC: cannot replace .* one group, no dilation"),
        ({"dilation": 2}, (4, 2), "one group, no dilation"), ({"padding": "same"}, (4, 2), "zero padding given in numbers"),
        ({}, (37, 2), "layer '0': TREC: sub_length is 37, expected 1 to 36"),
        ({}, (4, 5), "hash_bits is 5, expected 1 to 4"),
        ({}, (0, 2), "sub_length is 0"), ({}, (4, 2, "magic"), "hash is 'magic', expected one of kernel, "),
    ],
)  # fmt: skip
def test_what_is_refused(conv: dict[str, Any], settings: tuple[Any, ...], message: str) -> None:
    """Convolutions that TREC cannot replace and settings out of range, each with what would do and the layer's name."""
    with pytest.raises(ValueError, match=message):
        convert(nn.Sequential(nn.Conv2d(4, 4, 3, **conv)), {"0": Settings(*settings)})


@pytest.mark.parametrize("hash", trec_layer.HASHES)
def test_tokens_are_places_of_a_1x1_convolution(hash: str) -> None:
    """Outputs and gradients of a linear layer over tokens are those of the convolution with its weights."""
    torch.manual_seed(0)
    linear, conv = nn.Linear(6, 5), nn.Conv2d(6, 5, 1)
    conv.load_state_dict({"weight": linear.weight.detach()[..., None, None], "bias": linear.bias.detach()})
    own, other = TRECLinear(linear, Settings(4, 2, hash)).train(), TRECConv2d(conv, Settings(4, 2, hash)).train()
    tokens = torch.randn(3, 9, 6)
    if own.vectors is not None:
        own.fit_pca(tokens)
        other.fit_pca(tokens.transpose(1, 2)[..., None])
    for layer, given in ((own, tokens), (other, tokens.transpose(1, 2)[..., None])):
        layer(given).square().sum().backward()
    torch.testing.assert_close(own(tokens), other(tokens.transpose(1, 2)[..., None])[..., 0].transpose(1, 2))
    assert own.weight.grad is not None and other.weight.grad is not None
    torch.testing.assert_close(own.weight.grad, other.weight.grad[..., 0, 0])
    with pytest.raises(ValueError, match=r"reads \(9, 6\), expected tokens \(batch, tokens, features\)"):
        own(tokens[0])


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_some_outputs_alone(kind: str) -> None:
    """The first channels are those of a layer that has no others, the rest is exact; more than there are is refused."""
    torch.manual_seed(0)
    layer, given = (nn.Linear(6, 5), torch.randn(2, 9, 6)) if kind == "linear" else (nn.Conv2d(6, 5, 3), torch.randn(2, 6, 7, 7))
    (own,) = convert(nn.Sequential(layer), {"0": Settings(6, 2, outputs=3)})
    (all_of_it,) = convert(nn.Sequential(layer), {"0": Settings(6, 2)})
    axis = -1 if kind == "linear" else 1
    torch.testing.assert_close(own(given).narrow(axis, 0, 3), all_of_it(given).narrow(axis, 0, 3))
    torch.testing.assert_close(own(given).narrow(axis, 3, 2), layer(given).narrow(axis, 3, 2))
    with pytest.raises(ValueError, match="outputs is 6, expected 1 to 5"):
        convert(nn.Sequential(layer), {"0": Settings(6, 2, outputs=6)})


@pytest.mark.parametrize("hash", trec_layer.HASHES)
def test_one_image_without_a_batch_and_another_device(hash: str) -> None:
    """As nn.Conv2d: an image without the batch's axis, and no tensor made on the processor for maps of another device."""
    layer, image = made(hash), torch.randn(4, 7, 7)
    assert torch.equal(layer(image), layer(image[None])[0])
    conv = nn.Conv2d(4, 6, 3, padding=1, device="meta", dtype=torch.bfloat16)
    away = TRECConv2d(conv, Settings(5, 3, hash))
    assert {(one.device.type, one.dtype) for one in away.parameters()} == {("meta", torch.bfloat16)}
    away = TRECConv2d(nn.Conv2d(4, 6, 3, padding=1, device="meta"), Settings(5, 3, hash))
    for size in (5, 2):  # more rows than buckets, and fewer
        away(torch.randn(2, 4, size, size, device="meta")).square().sum().backward()
    assert all(one.grad is not None and one.grad.device.type == "meta" for one in away.parameters() if one.requires_grad)
