"""Programs: every instruction and block computes the same on the simulated core, from assembly, and on the host, from C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compiled import host, made
from sim_tools import build

from tinyredux.boards import find_board
from tinyredux.device.build import option
from tinyredux.kernels import ASSEMBLY_HEAD, ASSEMBLY_TAIL, C_HEAD, Function, print_assembly, print_c, scheduled
from tinyredux.kernels.asm.cost import function_cycles
from tinyredux.kernels.asm.instructions import OPS
from tinyredux.simulator.run import simulate

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
WORDS, ROUNDS = 6, 12


def every_instruction(skip_flags: bool = False) -> Function:
    """Returns a program that runs each instruction on words of `table` and appends its results there."""
    p = Function("tr_every", ("int32_t *table", "int32_t *out"), "Every instruction once.\nOperands come from a table.")
    p.new("a", "b", "c", "d", "*place")
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
        if name == "vmov":
            p.new_float("kept")
            p.vmov("kept", "b")
            operands[1] = "kept"
        getattr(p, name)(*operands)
        if name == "asrs":
            p.adc("b", "b", 0)
        for register in "abcd":
            p.str_post(register, "out", 4)
        p.sub("place", "place", "table")
    return p


def blocks() -> Function:
    """Returns a program of nested loops, with shifted operands and register lists."""
    p = Function("tr_every", ("int32_t *table", "int32_t *out"))
    p.new("a", "b", "i", "*end")
    p.add("end", "table", 16)
    p.mov("b", 0)
    with p.loop_until("table", "end"):
        p.mov("i", 3)
        p.ldr_post("a", "table", 4)
        with p.loop("i"):
            p.add("b", "b", "a", "asr 3")
            with p.repeated("rounds", 2):
                p.eor("b", "b", "i", "ror 5")
            p.sub("b", "a", "b", "lsl 1")
        p.str_post("b", "out", 4)
    p.sub("table", "table", "b", "lsr 31")
    p.sub("table", "end", 16)
    p.ldm("table", "a", "b")
    p.stm("out", "a", "b")
    p.sub("out", "out", 8)
    p.constant("a", 0x12345678)
    p.str("a", "out", 8)
    return p


def far() -> Function:
    """Returns a program with numbers that no instruction has room for: sums, and offsets of loads and stores."""
    p = Function("tr_every", ("int32_t *table", "int32_t *out"))
    p.new("a", "b", "*place")
    p.ldr("a", "table", 0)
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


def host_result(program: Function, folder: Path, words: np.ndarray, size: int) -> np.ndarray:
    """Returns what the C twin writes, run under sanitizers in a process of its own."""
    main = f"""
{program.declaration};
#include <stdio.h>
int main(void)
{{
    int32_t table[] = {{{", ".join(f"(int32_t){int(word)}u" for word in words.view(np.uint32))}}}, out[{size}] = {{0}};
    for (int32_t i = 0; i < {ROUNDS}; i++) {{
        int32_t copy[{WORDS}], *from = table + {WORDS} * i;
        for (int32_t k = 0; k < {WORDS}; k++) copy[k] = from[k];
        {program.name}(copy, out);
        for (int32_t k = 0; k < {size}; k++) printf("%u\\n", (uint32_t)out[k]);
    }}
    return 0;
}}
"""
    source = folder / "twin.c"
    source.write_text(C_HEAD + f"{program.declaration};\n" + print_c(program) + main)
    binary = made(host(*option("flags", "sanitize").split(), "-O0"), source)
    done = subprocess.run([str(binary)], check=True, capture_output=True, text=True)
    return np.array(done.stdout.split(), np.uint32)


def core_result(program: Function, folder: Path, words: np.ndarray, size: int) -> np.ndarray:
    """Returns what the assembly writes on the simulated F469."""
    main = f"""
void {program.name}(int32_t *table, int32_t *out);
static int32_t table[] = {{{", ".join(f"(int32_t){int(word)}u" for word in words.view(np.uint32))}}}, out[{size}], copy[{WORDS}];
int main(void)
{{
    REG(0xE000ED88) |= 0xFu << 20;
    for (int32_t i = 0; i < {ROUNDS}; i++) {{
        for (int32_t k = 0; k < {WORDS}; k++) copy[k] = table[{WORDS} * i + k];
        {program.name}(copy, out);
        for (int32_t k = 0; k < {size}; k++) number((uint32_t)out[k]);
    }}
    leave(0);
    return 0;
}}
"""
    assembly = folder / "every.S"
    assembly.write_text(ASSEMBLY_HEAD + print_assembly(program) + ASSEMBLY_TAIL)
    elf = build(folder, main, str(assembly))
    return np.array(simulate(elf, find_board("disco_f469ni"))["console"].split(), np.uint32)


def random_words() -> np.ndarray:
    """Returns the operands of ROUNDS runs: any words, and extremes."""
    rng = np.random.default_rng(3)
    words = rng.integers(0, 2**32, WORDS * ROUNDS, dtype=np.uint64).astype(np.uint32)
    extremes = np.array([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x80808080, 0x7F7F7F7F, 0x80007FFF], np.uint32)
    words[: WORDS * 5] = rng.choice(extremes, WORDS * 5)
    return words


@NEEDS_COMPILER
@pytest.mark.parametrize("make", [every_instruction, blocks, far])
def test_assembly_and_c_compute_the_same(make: type, tmp_path: Path) -> None:
    program, words = make(), random_words()
    size = {every_instruction: 4 * len(OPS), blocks: 7, far: 48}[make]
    on_host, on_core = (run(program, tmp_path, words, size) for run in (host_result, core_result))
    assert len(on_host) == size * ROUNDS
    if make is every_instruction:
        names = list(OPS)
        wrong = {names[i % size // 4] for i in np.flatnonzero(on_host != on_core)}
        assert not wrong
    np.testing.assert_array_equal(on_host, on_core)


@pytest.mark.parametrize("make", [every_instruction, blocks])
def test_another_order_computes_the_same(make: type, tmp_path: Path) -> None:
    program, words = make(), random_words()
    ordered = scheduled(program, "cortex-m7")
    size = 4 * len(OPS) if make is every_instruction else 7
    assert scheduled(program, "cortex-m4") is program
    saved = function_cycles(program, "cortex-m7") - function_cycles(ordered, "cortex-m7")
    assert saved > 0 or (make is blocks and saved == 0)
    results = [host_result(each, tmp_path, words, size) for each in (program, ordered)]
    np.testing.assert_array_equal(*results)


WRONG = {
    "takes 3 operands": lambda p: p.add("x", "x"),
    "has no register now": lambda p: p.mov("y", 1),
    "no instruction 'warp'": lambda p: p.warp("x"),
    "is no new register name": lambda p: p.new("x"),
    "no register left for": lambda p: p.new(*(f"n{i}" for i in range(14))),
    "ascending order": lambda p: p.ldm("from_", "x", "from_"),
    "takes wao": lambda p: p.ldr("x", "from_", "x"),
    "has no room for 5000, and from_ is value": lambda p: p.str("from_", "from_", 5000),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_program_is_refused(message: str) -> None:
    p = Function("tr_wrong", ("int32_t *from_",))
    p.new("x")
    with pytest.raises((ValueError, AttributeError), match=message):
        WRONG[message](p)


def test_registers_do_not_change_hands_inside_a_block() -> None:
    p = Function("tr_wrong", ("int32_t n",))
    with pytest.raises(ValueError, match="made or freed inside a block"), p.loop("n"):
        p.new("x")
    with pytest.raises(ValueError, match="at most 4"):
        Function("tr_wrong", ("int32_t a", "int32_t b", "int32_t c", "int32_t d", "int32_t e"))
