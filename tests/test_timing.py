"""What instructions cost: small sequences whose cycles the manual or published measurements give."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tinyredux.simulate.decode import decode_block
from tinyredux.timing import RULES, cycles_kind, model_name, price_block

pytestmark = pytest.mark.skipif(shutil.which("arm-none-eabi-as") is None, reason="arm-none-eabi-as is missing")

M4_CASES = {
    "alu": ("adds r0, r1\nadd.w r2, r3, r4\nmovs r5, #1", 3),
    "multiply, long multiply, dual multiply": (
        "mul r0, r1, r2\numull r3, r4, r1, r2\nsmlad r5, r1, r2, r5\nsmlal r3, r4, r1, r2",
        4,
    ),
    "divide": ("sdiv r0, r1, r2", 6),
    "one load": ("ldr r0, [r1]", 2),
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
    "branch not taken": ("cmp r0, #1\nbne .", 2),
    "float": ("vadd.f32 s0, s1, s2\nvmul.f32 s3, s4, s5", 2),
    "float multiply-accumulates into one sum": ("vfma.f32 s0, s1, s2\nvfma.f32 s0, s3, s4", 6),
    "a float divide and the next float instruction": ("vdiv.f32 s0, s1, s2\nvadd.f32 s3, s4, s5", 14 + 1),
    "integers beside a float divide": ("vdiv.f32 s0, s1, s2\nadds r0, #1\nadds r1, #1", 3),
    "a float result used at once": ("vadd.f32 s0, s1, s2\nvadd.f32 s3, s0, s4", 3),
    "vldr chains, vldr of a double does not": ("vldr s0, [r0]\nvldr s1, [r0, #4]\nvldr d1, [r0, #8]", 3 + 3),
}


def assemble(folder: Path, text: str, cpu: str = "cortex-m4") -> bytes:
    source, output = folder / "case.s", folder / "case.bin"
    source.write_text(f".syntax unified\n.thumb\n{text}\n")
    subprocess.run(["arm-none-eabi-as", f"-mcpu={cpu}", "-mfpu=fpv4-sp-d16", source, "-o", folder / "case.o"], check=True)
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", folder / "case.o", output], check=True)
    return output.read_bytes()


@pytest.mark.parametrize("name", M4_CASES)
def test_m4_costs(name: str, tmp_path: Path) -> None:
    text, cycles = M4_CASES[name]
    assert price_block(RULES["cortex-m4"], decode_block(assemble(tmp_path, text))).cycles == cycles


@pytest.mark.parametrize(
    ("text", "taken"),
    [("b .", 1), ("beq .", 1), ("bl .", 1), ("bx lr", 3), ("pop {r4, pc}", 3), ("ldr pc, [r0]", 3), ("tbb [pc, r0]", 3)],
)
def test_a_taken_branch_refills_the_pipeline(text: str, taken: int, tmp_path: Path) -> None:
    assert price_block(RULES["cortex-m4"], decode_block(assemble(tmp_path, text))).taken_cycles == taken


def test_loads_of_the_stack_need_no_look_at_their_address(tmp_path: Path) -> None:
    block = decode_block(assemble(tmp_path, "ldr r0, [sp, #4]\nldr r1, [r4]\nldr r2, [sp, #8]"))
    prices = price_block(RULES["cortex-m4"], block).loads
    assert [(price.position, price.chained, price.after_stack) for price in prices] == [(1, True, True), (2, True, False)]


def test_a_conditional_load_costs_its_cycles_only_when_executed(tmp_path: Path) -> None:
    block = decode_block(assemble(tmp_path, "cmp r0, #1\nite eq\nldreq r1, [r2]\nmovne r1, #0"))
    price = price_block(RULES["cortex-m4"], block)
    assert price.cycles == 3 and price.loads[0].conditional_cycles == 1


def test_the_m33_folds_branches_and_waits_for_loads(tmp_path: Path) -> None:
    rules = RULES["cortex-m33"]
    assert price_block(rules, decode_block(assemble(tmp_path, "subs r0, #1\nbne .", "cortex-m33"))).cycles == 1
    assert price_block(rules, decode_block(assemble(tmp_path, "ldr r0, [r1]\nadds r0, #1", "cortex-m33"))).cycles == 3
    assert price_block(rules, decode_block(assemble(tmp_path, "ldm r4!, {r0, r1, r2}", "cortex-m33"))).cycles == 3


def test_the_m7_issues_pairs(tmp_path: Path) -> None:
    rules = RULES["cortex-m7"]
    pairs = "\n".join(f"adds r{i}, #1" for i in range(6))
    chain = "\n".join("adds r0, #1" for _ in range(6))
    macs = "\n".join(f"smlad r{i}, r8, r9, r{i}" for i in range(6))
    cycles = [price_block(rules, decode_block(assemble(tmp_path, text, "cortex-m7"))).cycles for text in (pairs, chain, macs)]
    assert cycles == [3, 6, 6]


def test_stack_pointer_moves_are_seen(tmp_path: Path) -> None:
    text = "push {r4, lr}\nsub sp, #16\nvpush {s16, s17}\nstr r0, [sp, #-8]!\nldr r0, [sp], #8\nadd sp, #24\npop {r4, pc}"
    assert [instruction.stack_bytes for instruction in decode_block(assemble(tmp_path, text))] == [8, 16, 8, 8, -8, -24, -8]


def test_models_carry_a_version_and_say_what_they_are() -> None:
    assert model_name("cortex-m4").startswith("cortex-m4-pipeline-")
    assert [cycles_kind(cpu) for cpu in ("cortex-m4", "cortex-m33", "cortex-m7")] == ["modelled", "modelled", "modelled-estimate"]
