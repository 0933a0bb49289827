"""The book's networks, each a `torch.nn.Module` that carries `input_shape = (C, H, W)`."""

from collections.abc import Callable

import torch
from torch import nn

from tinyredux.nets import mobile, transformers


class Net(nn.Module):
    """A network with a stated input: what `compile` and `measure` take."""

    def __init__(self, body: nn.Module, input_shape: tuple[int, int, int] = (3, 32, 32)) -> None:
        super().__init__()
        self.body = body
        self.input_shape = input_shape

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits (N, classes) for images (N, C, H, W)."""
        logits: torch.Tensor = self.body(images)
        return logits


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _chain(*layers: nn.Module, shape: tuple[int, int, int] = (3, 32, 32)) -> Net:
    return Net(nn.Sequential(*layers), shape)


def cifarnet() -> Net:
    """CifarNet of the TREC artifact: two 5x5x64 convolutions without padding, then 1600-384-192-10."""
    return _chain(
        _conv(3, 64, 5), nn.MaxPool2d(2),
        _conv(64, 64, 5), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(1600, 384), nn.ReLU(inplace=True), nn.Dropout(0.3),
        nn.Linear(384, 192), nn.ReLU(inplace=True), nn.Linear(192, 10),
    )  # fmt: skip


def cifarnet_quick() -> Net:
    """The CIFAR-10 network of CMSIS-NN (arXiv 1801.06601): conv 5x5 3-32, 32-32, 32-64, pools 3x3/2, dense 1024-10.

    Training uses batch norm, which folds away; pools are 3x3 stride 2 with padding at the bottom and right in the
    paper's 'same' sense, written here as `ceil_mode`.
    """
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return _chain(
        _conv(3, 32, 5, padding=2), pool,
        _conv(32, 32, 5, padding=2), pool,
        _conv(32, 64, 5, padding=2), pool,
        nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip


class Fire(nn.Module):
    """SqueezeNet's block: a 1x1 squeeze, then 1x1 and 3x3 expansions side by side.

    Source: Iandola et al., arXiv 1602.07360, section 3.2.
    """

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = _conv(inputs, squeeze, 1)
        self.expand1 = _conv(squeeze, expand, 1)
        self.expand3 = _conv(squeeze, expand, 3, padding=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Returns (N, 2 * expand, H, W) for maps (N, inputs, H, W)."""
        squeezed = self.squeeze(maps)
        return torch.cat([self.expand1(squeezed), self.expand3(squeezed)], dim=1)


FIRE_INPUTS = (96, 128, 128, 256, 256, 384, 384, 512)
FIRES = tuple((inputs, 16 * (i // 2 + 1), 64 * (i // 2 + 1)) for i, inputs in enumerate(FIRE_INPUTS))  # inputs, squeeze, expand
POOL_AFTER = (2, 6)  # Fire4 and Fire8
SIMPLE_BYPASS = (1, 3, 5, 7)  # Fire3, 5, 7 and 9 keep the width, so the input can be added


class SqueezeNet(nn.Module):
    """SqueezeNet for 32x32 images as in the TREC artifact: stem 3x3x96, Fire2 to Fire9, conv10, global average.

    `complex_bypass` adds a 1x1 convolution around each Fire that widens (Fire2, 4, 6 and 8).
    """

    def __init__(self, complex_bypass: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 96, 3, padding=1), nn.MaxPool2d(2))
        self.fires = nn.ModuleList(Fire(*fire) for fire in FIRES)
        widening = [i for i in range(len(FIRES)) if i not in SIMPLE_BYPASS] if complex_bypass else []
        self.bypasses = nn.ModuleDict({str(i): nn.Conv2d(FIRES[i][0], 2 * FIRES[i][2], 1) for i in widening})
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.Dropout(0.1), _conv(512, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits (N, 10) for images (N, 3, 32, 32)."""
        maps = self.stem(images)
        for i, fire in enumerate(self.fires):
            fired = fire(maps)
            if i in SIMPLE_BYPASS:
                fired = fired + maps
            elif str(i) in self.bypasses:
                fired = fired + self.bypasses[str(i)](maps)
            maps = self.pool(fired) if i in POOL_AFTER else fired
        logits: torch.Tensor = self.head(maps)
        return logits


def squeezenet() -> Net:
    """SqueezeNet for 32x32 with simple bypass, 52.5 M MACs."""
    return Net(SqueezeNet(complex_bypass=False))


def squeezenet_bypass() -> Net:
    """SqueezeNet for 32x32 with complex bypass, 83.0 M MACs; about 1.07 MB of int8 weights."""
    return Net(SqueezeNet(complex_bypass=True))


def zfnet() -> Net:
    """A ZfNet reduced to 32x32 images and the F746's 1 MiB of flash.

    Reduced from Zeiler and Fergus: every convolution has a quarter of the channels (96-256-384-384-256 becomes
    24-64-96-96-64), the first kernel is 5x5/1 instead of 7x7/2 and the second has stride 1 (a 32x32 image has no
    room for more), the dense layers 9216-4096-4096 are 1024-256-10. The five convolutions, their other kernels
    and the three pools stay.
    """
    return _chain(
        _conv(3, 24, 5, padding=2), nn.MaxPool2d(2),
        _conv(24, 64, 5, padding=2), nn.MaxPool2d(2),
        _conv(64, 96, 3, padding=1), _conv(96, 96, 3, padding=1), _conv(96, 64, 3, padding=1), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(1024, 256), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(256, 10),
    )  # fmt: skip


def lenet(size: int = 32) -> Net:
    """The 'LeNet' of the approximate-kernels work (arXiv 2409.16815): conv 3x3 32-64-64 valid, dense 1024-64-10.

    For smaller images, of at least 18x18, the first dense layer is smaller.
    """
    side = ((size - 2) // 2 - 2) // 2 - 2  # of the last map
    return _chain(
        _conv(3, 32, 3), nn.MaxPool2d(2),
        _conv(32, 64, 3), nn.MaxPool2d(2),
        _conv(64, 64, 3), nn.Flatten(),
        nn.Linear(64 * side * side, 64), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(64, 10), shape=(3, size, size),
    )  # fmt: skip


def alexnet() -> Net:
    """An AlexNet-like net with the map sizes 30, 13, 11, 9, 2 of arXiv 2409.16815's code.

    Its channel counts and dense sizes are not public: 32-64-64-64-64 and 256-64-10 are ours.
    """
    return _chain(
        _conv(3, 32, 3), nn.MaxPool2d(2),
        _conv(32, 64, 3), _conv(64, 64, 3), _conv(64, 64, 3), nn.MaxPool2d(2),
        _conv(64, 64, 3), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(inplace=True), nn.Linear(64, 10),
    )  # fmt: skip


def mobilenetv2() -> Net:
    """MobileNetV2, width 0.35, for 144x144: the network of MCUNetV2's and msf-CNN's memory tables, 1,000 classes."""
    return Net(mobile.mobilenet_v2(0.35, 1000), (3, 144, 144))


def mobilenetv2_cifar() -> Net:
    """MobileNetV2, width 0.35, for 32x32: stride 1 in the stem and in the first stage that widens."""
    return Net(mobile.mobilenet_v2(0.35, 10, early_stride=1))


def vww() -> Net:
    """Person or not, 80x80: inverted bottlenecks in the manner of MCUNet-VWW, whose widest layer has the same 96,000 bytes."""
    return Net(mobile.bottlenecks(mobile.convolution(3, 16, 3, 2), 16, mobile.VWW_BLOCKS, 0, 2), (3, 80, 80))


def ds_cnn() -> Net:
    """Keywords: DS-CNN on 49 frames of 10 MFCC, twelve classes."""
    return Net(mobile.ds_cnn(), (1, 49, 10))


def ds_cnn_wide() -> Net:
    """Keywords: DS-CNN with 276 channels, as many as the large one of Hello Edge has, on the same map of 25x5; 40.7 M MACs."""
    return Net(mobile.ds_cnn(276), (1, 49, 10))


def keyword_cnn() -> Net:
    """Keywords by three plain convolutions: 3x3 32-64-64 on 49 frames of 10 MFCC, twelve classes; about DS-CNN's MACs."""
    pool = nn.MaxPool2d(2)
    return _chain(
        _conv(1, 32, 3, padding=1), pool, _conv(32, 64, 3, padding=1), pool, _conv(64, 64, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12), shape=(1, 49, 10),
    )  # fmt: skip


def cct() -> Net:
    """A compact convolutional transformer: three convolutions to 8x8 places, four blocks of 96 channels and four heads."""
    stem = nn.Sequential(
        _conv(3, 32, 3, padding=1), nn.MaxPool2d(2), _conv(32, 64, 3, padding=1), nn.MaxPool2d(2), _conv(64, 96, 3, padding=1)
    )
    return Net(transformers.Transformer(stem, tokens=64, width=96, blocks=4, heads=4, hidden=192, classes=10))


def keyword_transformer() -> Net:
    """Keywords: three of 49 frames of 10 MFCC are a token, begun at every second one; three blocks of 96 channels, two heads.

    Source: Berg, O'Connor and Cruz, arXiv 2104.00769, whose tokens are single frames, reduced from twelve blocks.
    """
    stem = nn.Sequential(nn.Conv2d(1, 96, (3, 10), (2, 1), bias=False), nn.BatchNorm2d(96), nn.ReLU())
    return Net(transformers.Transformer(stem, tokens=24, width=96, blocks=3, heads=2, hidden=192, classes=12), (1, 49, 10))


_MAKERS = (
    alexnet, cct, cifarnet, cifarnet_quick, ds_cnn, ds_cnn_wide, keyword_cnn, keyword_transformer, lenet, mobilenetv2,
    mobilenetv2_cifar, squeezenet, squeezenet_bypass, vww, zfnet,
)  # fmt: skip
_LARGER = {"lenet_100": lambda: lenet(100)}  # on pictures of 100x100: more than most boards' SRAM, layer by layer
NETS: dict[str, Callable[[], Net]] = dict(sorted(({make.__name__: make for make in _MAKERS} | _LARGER).items()))
