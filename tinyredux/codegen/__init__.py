"""C from a placed network: calls, structs, weights, kernels, manifest.

`parts` writes a placed program of steps, layer by layer or in loops of parts; `calls` describes the call of one step and `check`
reads it back as the kernel will; `artifact` holds the files; `copies` says what of them start-up is to copy to idle RAM.
`assemble` chooses kernels within a board's memory and writes the C.
"""

from __future__ import annotations

from tinyredux.codegen import code_sizes
from tinyredux.codegen.artifact import HASH_PLACEHOLDER, NOTHING, Artifact, Copies, hash_of
from tinyredux.codegen.assemble import (
    KERNELS,
    Kernels,
    assemble,
    board_budget,
    check_kernels,
    compacted,
    flash_limit,
    kernels_for,
    layers,
    limits,
    plain_flash,
    step_ways,
    sure_flash,
    templates_of,
    trec_bytes,
)
from tinyredux.codegen.copies import copies_for, with_copies
from tinyredux.codegen.parts import emit_steps

__all__ = [
    "HASH_PLACEHOLDER", "KERNELS", "NOTHING", "Artifact", "Copies", "Kernels", "assemble", "board_budget", "check_kernels",
    "code_sizes", "compacted", "copies_for", "emit_steps", "flash_limit", "hash_of", "kernels_for", "layers", "limits",
    "plain_flash", "step_ways", "sure_flash", "templates_of", "trec_bytes", "with_copies",
]  # fmt: skip
