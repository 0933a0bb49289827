"""C from a placed network: calls, structs, weights, kernels, manifest.

`layerwise` writes a network one operator at a time, `parts` a program of steps in loops; `calls` describes the call of one step
and `check` reads it back as the kernel will. `assemble` chooses kernels within a board's memory and writes the C.
"""

from __future__ import annotations

from tinyredux.codegen import code_sizes
from tinyredux.codegen.assemble import (
    KERNELS,
    Kernels,
    Layers,
    assemble,
    board_budget,
    check_kernels,
    compacted,
    emit_layers,
    kernels_for,
    layers,
    limits,
    templates_of,
    trec_bytes,
)
from tinyredux.codegen.layerwise import HASH_PLACEHOLDER, Artifact, hash_of
from tinyredux.codegen.parts import emit_steps

__all__ = [
    "HASH_PLACEHOLDER",
    "KERNELS",
    "Artifact",
    "Kernels",
    "Layers",
    "assemble",
    "board_budget",
    "check_kernels",
    "code_sizes",
    "compacted",
    "emit_layers",
    "emit_steps",
    "hash_of",
    "kernels_for",
    "layers",
    "limits",
    "templates_of",
    "trec_bytes",
]
