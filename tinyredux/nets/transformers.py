"""The bodies of transformers: a convolutional stem, blocks of attention over its places, their mean, classes.

Sources: Vaswani et al., arXiv 1706.03762; Hassani et al., compact convolutional transformers, arXiv 2104.05704, section 3.3.
"""

import torch
from torch import nn


class Block(nn.Module):
    """Attention of all tokens to all, then two linear layers, each of a normalised input and added to it.

    Source: the pre-norm form of Xiong et al., arXiv 2002.04745, figure 1(b), with ReLU, which an integer layer clips for nothing.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attended, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns tokens (N, tokens, width) for such."""
        parts = self.attended(self.before_attention(tokens)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        shares = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)  # on a CPU it trains faster than fused
        tokens = tokens + self.joined((shares @ value).transpose(1, 2).flatten(2))
        mixed: torch.Tensor = tokens + self.mlp(self.before_mlp(tokens))
        return mixed


class Transformer(nn.Module):
    """A stem that writes a map, whose places with learned positions are the tokens of blocks; the mean of these is classified."""

    def __init__(self, stem: nn.Module, tokens: int, width: int, blocks: int, heads: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(blocks)))
        self.norm, self.classes = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits (N, classes) for images (N, C, H, W)."""
        tokens = self.stem(images).flatten(2).transpose(1, 2) + self.positions
        logits: torch.Tensor = self.classes(self.norm(self.blocks(tokens)).mean(1))
        return logits
