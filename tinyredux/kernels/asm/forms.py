"""A form: one way to compute one operator, with what it costs.

Every template module (`TEMPLATES` in `choose`) has a function `forms(graph, op, core)` that returns the forms it has for an
operator on a core, none where it does not apply. `choose` takes one form per operator; the emitter writes its arrays to
weights.bin, its functions to fast.S and fast_host.c, and its call where the reference kernel's would stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from tinyredux.graph import Array
from tinyredux.kernels.asm.cost import code_bytes
from tinyredux.kernels.asm.function import Function

STREAM_CYCLES = 5 / 16  # a byte: a line of 16 behind 5 wait states on an STM32F4, 32 behind 12 on an F7


class Lies(IntEnum):
    """How a map lies: at a word and without gaps; anywhere without gaps; in rows apart from each other; in any other way."""

    AT_WORD = 0
    ANYWHERE = 1
    IN_ROWS = 2
    APART = 3


@dataclass(frozen=True)
class Places:
    """Where an operator's data lies, as C expressions: `int8_t *`, for `arrays` a pointer to the array's type.

    Tensors and scratch begin at multiples of 4, unless the form says more of how they may lie; arrays at multiples of 16. No two
    overlap. `in_row`: values from a row of the first input to the next, 0 where there is no gap.
    """

    out: str
    inputs: tuple[str, ...]
    scratch: str
    arrays: Mapping[str, str]
    in_row: int = 0


@dataclass(frozen=True)
class Later:
    """Functions that are written only for a form that is chosen, and the bytes of their code, known before."""

    write: Callable[[], tuple[Function, ...]]
    code_bytes: int


@dataclass(frozen=True)
class Form:
    """One way to compute one operator.

    `cycles` is a prediction for the core, with stalls of code where it is `OnBoard`. `arrays` (int8, int16, int32) are all that
    it reads from flash beside code, by a short name each. `call` returns C statements, without indentation. `proof` says in one
    line what keeps its sums in range, where the kernel's own comment cannot. `streamed_bytes`: how much of the arrays is read in
    all, where they are read in order more than once, so that every line is fetched from flash anew. `lies`: the
    loosest way in which its first input may lie; its output may begin anywhere, too, unless that is AT_WORD.
    """

    name: str
    cycles: int
    scratch_bytes: int
    functions: tuple[Function, ...]
    call: Callable[[Places], str]
    arrays: Mapping[str, Array] = field(default_factory=dict)
    proof: str = ""
    streamed_bytes: int = 0
    later: Later | None = None
    byte_cycles: float = STREAM_CYCLES  # of a byte that is streamed
    lies: Lies = Lies.AT_WORD

    @property
    def cost(self) -> float:
        """Cycles with the flash stalls of what is streamed: what a choice between forms compares."""
        return self.cycles + self.byte_cycles * self.streamed_bytes

    @property
    def flash_bytes(self) -> int:
        """Bytes of arrays and code; code that operators share counts for each."""
        later = self.later.code_bytes if self.later else 0
        arrays = sum(values.nbytes for values in self.arrays.values())
        return later + arrays + sum(code_bytes(function) for function in self.functions)

    def complete(self) -> Form:
        """Returns the form with all its functions written."""
        return self if self.later is None else replace(self, functions=(*self.functions, *self.later.write()), later=None)
