"""Programs: every instruction computes the same on a core, from assembly, and on this computer, from C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import NEEDS_COMPILER
from fast_tools import core_program, host_library, pointer

from tinyredux.kernels import Function, scheduled
from tinyredux.kernels.asm.cost import function_cycles
from tinyredux.kernels.asm.instructions import OPS

WORDS, ROUNDS, SAVED = 6, 12, 5  # operands and runs; the words that each instruction leaves


def every_instruction() -> Function:
    """Returns a program that runs each instruction on words of `table` and appends its results to `out`."""
    p = Function("tr_every", ("int32_t *table", "int32_t *out"), "Every instruction once.\nOperands come from a table.")
    p.new("a", "b", "c", "d", "*place")
    p.new_float("x", "y")
    for name, op in OPS.items():
        for i, register in enumerate("abcd"):
            p.ldr(register, "table", 4 * i)
        p.mov("place", "table")
        if name in ("lsl", "lsr", "asr", "asrs"):
            p.and_("c", "c", 7)
            p.add("c", "c", 1)
        operands: list[str | int] = []
        values = iter("abcd")
        for position, role in enumerate(op.roles):
            if role in "abo":
                operands.append(4 if role == "o" else "place")
            else:
                operands.append((7 if position else 9) if role == "n" else next(values))
        if name in ("movw", "movt"):
            operands[1] = 54321
        if op.kind == "float":  # numbers that are whole, in registers of their own
            for kept, register in (("x", "b"), ("y", "c")):
                p.vmov(kept, register)
                if name != "vmov":
                    p.vcvt(kept, kept)
            operands = ["a", "x"] if name == "vmov" else ["x", "x", "y"][: len(op.roles)]
        if name in ("ldrb_at", "ldrh_at"):
            p.and_("c", "c", 3)
            operands[2] = "c"
        getattr(p, name)(*operands)
        if operands[0] == "x":
            p.vmov("a", "x")
        if name == "asrs":
            p.adc("b", "b", 0)
        p.sub("place", "place", "table")
        for register in ("a", "b", "c", "d", "place"):
            p.str_post(register, "out", 4)
    return p


def far() -> Function:
    """Returns a program with shifted operands, and with numbers that no instruction has room for: sums, offsets."""
    p = Function("tr_every", ("int32_t *table", "int32_t *out"))
    p.new("a", "b", "*place")
    p.ldm("table", "a", "b")
    for shift in ("asr 3", "ror 5", "lsl 1", "lsr 31"):
        p.eor("b", "b", "a", shift)
        p.str_post("b", "out", 4)
    for number in (4095, 4096, 4632, 5000, 65535, 0x123456, -4632, -70001, 0x7FFFFFFF):
        p.add("b", "a", number)
        p.str_post("b", "out", 4)
        p.sub("a", "b", number)
        p.str_post("a", "out", 4)
    for distance in (-256, 4100, 70000):
        p.add("place", "table", -distance)
        p.ldr("b", "place", distance)
        p.str_post("b", "out", 4)
        p.ldr("a", "place", distance)
        p.move("out", "out", distance)
        p.move("out", "out", -distance, "b")
        p.stm("out", "a", "b")
        p.ldr_pre("a", "place", distance)
        p.str_post("a", "out", 4)
        p.ldrsb_post("a", "place", -distance)
        p.str_post("a", "out", 4)
        p.ldrb("b", "place", distance + 5)
        p.str_post("b", "out", 4)
        p.add("place", "out", distance)
        p.str("a", "place", 4 - distance)
        p.sub("place", "place", distance)
        p.strh_post("b", "place", distance)
        p.add("out", "out", 16)
    return p


def host_result(program: Function, folder: Path, operands: np.ndarray, size: int) -> np.ndarray:
    """Returns what the C twin writes."""
    run, found = getattr(host_library(folder, [program]), program.name), np.zeros((ROUNDS, size), np.uint32)
    for table, out in zip(operands.copy(), found, strict=True):
        run(pointer(table), pointer(out))
    return found


def core_result(program: Function, folder: Path, operands: np.ndarray, size: int, core: str) -> np.ndarray:
    """Returns what the machine code writes."""
    cpu, found = core_program(folder, program, core), []
    for table in operands:
        at, out, _ = cpu.place([table.tobytes(), bytes(4 * size)])
        cpu.call(program.name, at, out)
        found.append(np.frombuffer(cpu.read(out, 4 * size), np.uint32))
    return np.stack(found)


def random_operands() -> np.ndarray:
    """Returns the operands of ROUNDS runs: extremes, and any words."""
    rng = np.random.default_rng(3)
    words = rng.integers(0, 2**32, (ROUNDS, WORDS), dtype=np.uint64).astype(np.uint32)
    extremes = np.array([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x80808080, 0x7F7F7F7F, 0x80007FFF], np.uint32)
    words[:5] = rng.choice(extremes, (5, WORDS))
    return words


@NEEDS_COMPILER
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
@pytest.mark.parametrize(("make", "size"), [(every_instruction, SAVED * len(OPS)), (far, 52)])
def test_assembly_and_c_compute_the_same(make: Callable[[], Function], size: int, core: str, tmp_path: Path) -> None:
    """Both in the order that the core gets, and C as it was written."""
    program, operands = make(), random_operands()
    ordered = scheduled(program, core)
    saved = function_cycles(program, core) - function_cycles(ordered, core)
    assert ordered is program if core == "cortex-m4" else saved > 0
    expected = host_result(program, tmp_path, operands, size)
    for found in (host_result(ordered, tmp_path, operands, size), core_result(ordered, tmp_path, operands, size, core)):
        places = np.flatnonzero((found != expected).any(axis=0))
        assert not len(places), [[*OPS][i // SAVED] for i in places] if make is every_instruction else places


def in_a_block(p: Function) -> None:
    with p.loop("from_"):
        p.new("y")


WRONG: dict[str, Callable[[Any], object]] = {
    "takes 3 operands": lambda p: p.add("x", "x"), "has no register now": lambda p: p.mov("y", 1),
    "no instruction 'warp'": lambda p: p.warp("x"), "is no new register name": lambda p: p.new("x"),
    "no register left for": lambda p: p.new(*(f"n{i}" for i in range(14))),
    "ascending order": lambda p: p.ldm("from_", "x", "from_"), "takes 3 operands .wao": lambda p: p.ldr("x", "from_", "x"),
    "has no room for 5000, and from_ is value": lambda p: p.str("from_", "from_", 5000),
    "made or freed inside a block": in_a_block,
    "at most 4": lambda p: Function("tr_wrong", tuple(f"int32_t {name}" for name in "abcde")),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_program_is_refused(message: str) -> None:
    p = Function("tr_wrong", ("int32_t *from_",))
    p.new("x")
    with pytest.raises((ValueError, AttributeError), match=message):
        WRONG[message](p)
