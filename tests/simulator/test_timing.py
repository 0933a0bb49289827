"""What instructions cost: small sequences whose cycles the manual or published measurements give."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tinyredux.simulator import RULES, cycles_kind, error_band, model_name, price_block, timing
from tinyredux.simulator.decode import Instruction, decode_block

pytestmark = pytest.mark.skipif(shutil.which("arm-none-eabi-as") is None, reason="arm-none-eabi-as is missing")

M4 = {  # what it shows: instructions, cycles
    "alu": ("adds r0, r1\nadd.w r2, r3, r4\nmovs r5, #1", 3),
    "multiply, long multiply, dual multiply": (
        "mul r0, r1, r2\numull r3, r4, r1, r2\nsmlad r5, r1, r2, r5\nsmlal r3, r4, r1, r2",
        4,
    ),
    "divide": ("sdiv r0, r1, r2", 6), "one load": ("ldr r0, [r1]", 2),
    "n loads cost n + 1": ("ldr r0, [r4]\nldr r1, [r4, #4]\nldr r2, [r5]\nldrb r3, [r6, r7]", 5),
    "no chain through write-back of the same base": ("ldr r0, [r4], #4\nldr r1, [r4], #4", 4),
    "a chain through alternating bases": ("ldr r0, [r4], #4\nldr r1, [r5], #4", 3),
    "a load at a loaded address": ("ldr r0, [r4]\nldr r1, [r0]", 4),
    "an address from the instruction before": ("adds r4, #4\nldr r0, [r4]", 4),
    "an address from two instructions before": ("adds r4, #4\nmovs r1, #0\nldr r0, [r4]", 4),
    "a load feeds arithmetic without a wait": ("ldr r0, [r4]\nadds r0, #1", 3),
    "ldm, ldrd, pop": ("ldm r4!, {r0, r1, r2}\nldrd r0, r1, [r5]\npop {r0, r1}", 4 + 3 + 3),
    "stm, strd, push": ("stm r4!, {r0, r1}\nstrd r0, r1, [r5]\npush {r0}", 3 + 3 + 2),
    "store by immediate, by register": ("str r0, [r4, #4]\nmovs r1, #0\nstr r0, [r4, r5]", 1 + 1 + 2),
    "a store hides the load's wait": ("ldr r0, [r4]\nstr r0, [r5]", 2),
    "a load after a store waits": ("str r0, [r4]\nldr r1, [r5]", 1 + 3),
    "it after a 16-bit instruction is free": ("cmp r0, #1\nit eq\nmoveq r1, #2", 2),
    "it after a 32-bit instruction is not": ("cmp.w r0, r8\nit eq\nmoveq r1, #2", 3),
    "branch not taken": ("cmp r0, #1\nbne .", 2), "float": ("vadd.f32 s0, s1, s2\nvmul.f32 s3, s4, s5", 2),
    "float multiply-accumulates into one sum": ("vfma.f32 s0, s1, s2\nvfma.f32 s0, s3, s4", 6),
    "a float divide and the next float instruction": ("vdiv.f32 s0, s1, s2\nvadd.f32 s3, s4, s5", 14 + 1),
    "integers beside a float divide": ("vdiv.f32 s0, s1, s2\nadds r0, #1\nadds r1, #1", 3),
    "a float result used at once": ("vadd.f32 s0, s1, s2\nvadd.f32 s3, s0, s4", 3),
    "vldr chains, vldr of a double does not": ("vldr s0, [r0]\nvldr s1, [r0, #4]\nvldr d1, [r0, #8]", 3 + 3),
}  # fmt: skip
M4_TAKEN = {"b .": 1, "beq .": 1, "bl .": 1, "bx lr": 2, "blx r3": 2, "pop {r4, pc}": 3, "ldr pc, [r0]": 3, "tbb [pc, r0]": 3}
M4_WIDE = {  # instructions at an address between two words, and the cycles that fetching adds
    "nop\nadd.w r0, r1, r2\nadd.w r3, r4, r5": 0,
    "nop\nadd.w r0, r1, r2\nadd.w r3, r4, r5\nadd.w r6, r7, r8\nadd.w r6, r7, r8": 1,
    "nop\nnop\nadd.w r0, r1, r2\nadd.w r3, r4, r5\nadd.w r6, r7, r8": 0, "nop\nstr.w r0, [r9]\nstr.w r1, [r9]\nstr.w r2, [r9]": 0,
    "nop\nstr.w r0, [r9]\nstr.w r1, [r9]\nstr.w r2, [r9]\nadd.w r6, r7, r8": 1,
}  # fmt: skip
M33 = {  # the same, and cycles on top when the block is left by a taken branch
    "a branch beside what sets its flags": ("subs r0, #1\nbne .", 1, 2),
    "a branch beside what does not": ("subs r0, #1\nadd r1, r2\nbne .", 2, 1),
    "a branch after a 32-bit instruction issues alone": ("subs.w r0, #1\nbne .", 2, 1),
    "it beside a 16-bit instruction, and alone": ("cmp r0, #1\nit eq\nmoveq r1, #2\ncmp.w r0, r8\nit eq\nmoveq r1, #2", 5, 1),
    "a loaded word is waited for": ("ldr r0, [r1]\nadds r0, #1", 3, 1),
    "not where it is stored": ("ldr r0, [r1]\nstr r0, [r2]", 2, 1),
    "nor where a product is added to it": ("ldr r0, [r1]\nmla r0, r2, r3, r0", 2, 1),
    "but where it is a factor": ("ldr r0, [r1]\nmla r4, r0, r3, r4", 3, 1),
    "a product is waited for": ("mul r0, r1, r2\nadds r0, #1", 3, 1),
    "not where it is added to": ("smlad r0, r1, r2, r0\nsmlad r0, r3, r4, r0\nuxtab r0, r0, r5", 3, 1),
    "nor stored": ("mul r0, r1, r2\nstr r0, [r3]", 2, 1), "a product with flags": ("muls r0, r1", 2, 1),
    "a shifted operand is late": ("add.w r0, r1, r2, lsl #3\nadds r0, #1", 3, 1),
    "so is a constant of a shifted byte": ("add.w r0, r1, #0x1fc0\nadds r0, #1", 3, 1),
    "other constants are not": ("add.w r0, r1, #0xff\nadds r0, #1\naddw r0, r1, #0xff9\nadds r0, #1", 4, 1),
    "nothing floats beside a float product": ("vfma.f32 s0, s1, s2\nvadd.f32 s3, s4, s5", 4, 1),
    "lists cost a cycle a word": ("ldm r4!, {r0, r1, r2}", 3, 1),
}  # fmt: skip
M7_SIX = {  # six in a row: one each cycle where each adds to the sum of the one before, a cycle between where it is a factor
    "adds r0, #1": 6, "smlad r0, r1, r2, r0": 6, "smlald r0, r1, r2, r3": 6, "smlal r0, r1, r2, r3": 6, "umaal r0, r1, r2, r3": 6,
    "mls r0, r1, r2, r0": 6, "smlad r1, r1, r2, r3": 11, "mul r0, r0, r1": 11,
    "adds r{i}, #1": 3, "smlad r{i}, r8, r9, r{i}": 6,  # none needs another: two a cycle, multiplications one
}  # fmt: skip
SUMS = "smlal smlalbb smlalbt smlaltb smlaltt smlald smlaldx smlsld smlsldx umlal umaal".split()
PRODUCTS = "mla mls smlad smladx smlsd smlsdx smlabb smlabt smlatb smlatt smlawb smlawt smmla smmlar smmls smmlsr usada8".split()
REGISTERS = {  # read, written, added to
    **{f"{name} r0, r1, r2, r3": ([0, 1, 2, 3], [0, 1], [0, 1]) for name in SUMS},
    **{f"{name} r0, r1, r2, r3": ([1, 2, 3], [0], [3]) for name in PRODUCTS},
    "umull r0, r1, r2, r3": ([2, 3], [0, 1], []), "pkhbt r0, r1, r2, lsl #4": ([1, 2], [0], []),
    "sxtab16 r0, r1, r2, ror #8": ([1, 2], [0], [1]), "usat r0, #3, r1": ([1], [0], []), "bfi r0, r1, #3, #4": ([0, 1], [0], []),
    "vpush {s0, s1}": ([13, 32, 33], [13], []), "vpop {s0, s1}": ([13], [13, 32, 33], []),
    "vstm r0!, {s0, s1}": ([0, 32, 33], [0], []), "vldm r0, {s0, s1}": ([0], [32, 33], []),
}  # fmt: skip
STACK = "push {r4, lr}\nsub sp, #16\nvpush {s16, s17}\nstr r0, [sp, #-8]!\nldr r0, [sp], #8\nadd sp, #24\npop {r4, pc}"
OF_STACK = "ldr r0, [sp, #4]\nldr r1, [r4]\nldr r2, [sp, #8]"
CONDITIONAL = "cmp r0, #1\nite eq\nldreq r1, [r2]\nmovne r1, #0"


def six(text: str) -> str:
    return "\n".join(text.replace("{i}", str(i)) for i in range(6))


TEXTS: dict[str, Iterable[str]] = {
    "cortex-m4": [*(case[0] for case in M4.values()), *M4_TAKEN, *M4_WIDE, *REGISTERS, STACK, OF_STACK, CONDITIONAL],
    "cortex-m33": [case[0] for case in M33.values()],
    "cortex-m7": map(six, M7_SIX),
}


@cache
def blocks(cpu: str) -> dict[str, list[Instruction]]:
    """Returns the decoded instructions of a core's texts, each assembled into a section of its own."""
    texts = list(TEXTS[cpu])
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "cases.s"
        sections = "".join(f'.section case{i}, "ax"\n{text}\n' for i, text in enumerate(texts))
        source.write_text(f".syntax unified\n.thumb\n{sections}")
        subprocess.run(["arm-none-eabi-as", f"-mcpu={cpu}", "-mfpu=fpv4-sp-d16", source, "-o", f"{folder}/cases.o"], check=True)
        with open(f"{folder}/cases.o", "rb") as stream:
            elf = ELFFile(stream)
            return {text: decode_block(elf.get_section_by_name(f"case{i}").data()) for i, text in enumerate(texts)}


def cycles(cpu: str, text: str, taken: bool = False, address: int = 0x08000000) -> int:
    price = price_block(RULES[cpu], blocks(cpu)[text], address)
    return price.taken_cycles if taken else price.cycles


def test_blocks_cost_what_is_published() -> None:
    assert {name: (text, cycles("cortex-m4", text)) for name, (text, _) in M4.items()} == M4
    assert {text: cycles("cortex-m4", text, True) for text in M4_TAKEN} == M4_TAKEN
    assert {name: (text, cycles("cortex-m33", text), cycles("cortex-m33", text, True)) for name, (text, *_) in M33.items()} == M33
    assert {text: cycles("cortex-m7", six(text)) for text in M7_SIX} == M7_SIX


def test_fetching_falls_behind_in_rows_of_wide_instructions_across_words() -> None:
    for text, more in M4_WIDE.items():
        assert cycles("cortex-m4", text) == len(text.split("\n")) + more
        assert "nop\nnop" in text or cycles("cortex-m4", text, address=0x08000002) == len(text.split("\n"))


def test_loads_of_the_stack_need_no_look_at_their_address_and_conditional_ones_cost_when_executed() -> None:
    prices = price_block(RULES["cortex-m4"], blocks("cortex-m4")[OF_STACK]).loads
    assert [(price.position, price.chained, price.after_stack) for price in prices] == [(1, True, True), (2, True, False)]
    price = price_block(RULES["cortex-m4"], blocks("cortex-m4")[CONDITIONAL])
    assert price.cycles == 3 and price.loads[0].conditional_cycles == 1


def test_instructions_list_what_they_read_write_and_add_to() -> None:
    def bits(mask: int) -> list[int]:
        return [number for number in range(64) if mask >> number & 1]

    found = {text: blocks("cortex-m4")[text] for text in REGISTERS}
    assert {text: (bits(i.reads), bits(i.writes), bits(i.adds)) for text, (i,) in found.items()} == REGISTERS
    assert [instruction.stack_bytes for instruction in blocks("cortex-m4")[STACK]] == [8, 16, 8, 8, -8, -24, -8]


def test_models_carry_a_version_and_bands_that_follow_from_the_comparisons_with_boards() -> None:
    assert model_name("cortex-m4").startswith("cortex-m4-pipeline-")
    assert [cycles_kind(cpu) for cpu in RULES] == ["modelled", "modelled-estimate", "modelled-estimate"]
    table = json.loads(Path(timing.__file__).with_name("validation.json").read_text())
    for cpu in RULES:
        rows = [row for row in table["rows"] if row["cpu"] == cpu]
        assert rows and all(row["published"] and row["workload"] and row["board"] for row in rows)
        least, most = (
            pick(row["model_over_published"][i] * row["change"][i] for row in rows) for i, pick in enumerate((min, max))
        )
        low, high = error_band(cpu)
        assert 0 <= 1 / most - low < 0.01 and 0 <= high - 1 / least < 0.01
    assert all(row["model_version"] <= timing.CORES[row["cpu"]].model_version for row in table["rows"])
