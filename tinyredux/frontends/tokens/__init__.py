"""Tokens: torch's tensors (1, tokens, features), and what attention makes of them.

A map whose channels torch has brought to the end is a row of tokens. `Builder.turned` says of each node behind such a turn where
each of its values lies in the map, as an array of torch's shape; whatever torch does with axes (permute, reshape, split, select)
is done with that array, and nothing moves. A layer then reads which places and which channels of the map its operand is.

`places` reads them, `attention` joins what waits, `einsum` says what an einsum is made of, `layers` converts everything else.
"""

from __future__ import annotations

from tinyredux.frontends.tokens.attention import multiply
from tinyredux.frontends.tokens.einsum import as_products
from tinyredux.frontends.tokens.layers import convert
from tinyredux.frontends.tokens.places import take_part

__all__ = ["as_products", "convert", "multiply", "take_part"]
