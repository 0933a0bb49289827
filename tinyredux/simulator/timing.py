"""What an instruction costs: the Cortex-M4 model, the Cortex-M33 and Cortex-M7 estimates.

An instruction is described by what the pipeline sees of it (`Instruction`); a basic block is priced once. What depends on
addresses (chaining across memories, alignment, flash lines) is left to the simulator, instruction by instruction.

How far the models are from boards stands in validation.json, by core, with who measured what; every modelled figure carries
that band (`error_band`). The Cortex-M4 is within 6 % of eight published workloads. The Cortex-M7 has a network of 2018 at 0.92 to
1.21 of its published time, depending on the age of the kernels it is rebuilt with. The Cortex-M33 is some 10 % too fast.

Source: Cortex-M4 Technical Reference Manual, section 3.3; measurements on STM32F407, RP2350 and STM32H743, "pipeline cycle
test" of github.com/jnk0le/random; rows of 32-bit instructions across word boundaries: compendium.i-0.nl, "alignment rules".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tinyredux.files import checked, read_json

NO_REGISTER = 16
PROGRAM_COUNTER, STACK_POINTER = 15, 13


@dataclass(frozen=True)
class Instruction:
    """One instruction as the pipeline sees it. Registers are bit masks: r0..r15 in bits 0..15, s0..s31 in bits 32..63.

    `address_reads` are the registers that form a memory address, base + (index << shift) + offset; `words` the 32-bit words a
    load or store moves; `access_bytes` the size of one access; `words` of an IT instruction: how many it covers; `stack_bytes`:
    how far it lowers the stack pointer by a constant; `adds`: the registers that a multiply-accumulate or an extend-and-add adds
    to, which it needs last; `late`: the result takes a second stage on an M33 (an operand is shifted, or extended and added).
    """

    size: int
    kind: str
    reads: int = 0
    writes: int = 0
    address_reads: int = 0
    base: int = NO_REGISTER
    index: int = NO_REGISTER
    shift: int = 0
    offset: int = 0
    words: int = 0
    access_bytes: int = 4
    conditional: bool = False
    to_pc: bool = False
    stack_bytes: int = 0
    adds: int = 0
    late: bool = False
    sets_flags: bool = False


NOTHING = Instruction(0, "nothing")  # before the first instruction of a block
LOADS = ("load", "load-many")  # also pop, ldm, vldm


@dataclass(frozen=True)
class Rules:
    """Cycles of a core's instruction classes.

    `chain`: a load right after a load costs one cycle less. `many`: what a register list costs beyond one cycle a word.
    `taken`, `taken_register`, `taken_indirect`: refill of the pipeline after a branch to a label, to a register, to a loaded
    address; the later the address is known, the longer. `wide_row`: what three or more 32-bit instructions in a row cost when
    they lie across word boundaries, for fetching falls behind.
    `float_divide`: of a divide or square root, beside which instructions without floating point run on.
    `load_use`, `mac_use`: wait of the next instruction for a loaded word, or for a product or another late result; what is
    stored or added to may come later. `fold_branch`: a 16-bit branch issues beside the 16-bit instruction before it, so it costs
    nothing unless taken, and if that instruction makes what it asks for, a cycle more when taken. `float_busy`: cycles after a
    float multiply-accumulate in which no other float instruction issues. `system_fetch`: for each word of code that comes
    over the system bus, which has a request a cycle later than the code bus, so one word in two cycles. Loads and stores over the
    same bus hold it up further; that is not counted.
    """

    load: int
    chain: bool
    load_use: int
    address_wait: int
    store_index: int
    load_after_store: int
    divide: int
    taken: int
    taken_register: int
    taken_indirect: int
    wide_target: int
    float_mac: int
    float_divide: int
    float_use: int
    unaligned: int
    many: int = 1
    mac_use: int = 0
    fold_branch: bool = False
    mispredict: int = 0
    wide_row: int = 0
    float_busy: int = 0
    system_fetch: int = 0


@dataclass(frozen=True)
class Core:
    """A core as cores.json holds it: its timing model with the kind of cycles that it gives, CPUID, and what programs it runs.

    `architectures` and `float_units` are values of the ELF attributes Tag_CPU_arch and Tag_FP_arch (Arm ABI addenda, 2.5.1).
    `cache_ways`: lines of a set of the code and the data cache; None: the caches are the flash's, and have one set.
    """

    timing_model: str
    model_version: int
    cycles_kind: str
    cpuid: int
    architectures: tuple[int, ...]
    float_units: tuple[int, ...]
    rules: Rules
    cache_ways: tuple[int, ...] | None = None


CORES = checked(dict[str, Core], read_json(Path(__file__).with_name("cores.json"), "table of cores"), "cores.json")
RULES = {cpu: core.rules for cpu, core in CORES.items()}


@dataclass(frozen=True)
class Kind:
    """A kind of instruction as kinds.json holds it: its mnemonics where those alone tell it, and what all cores have in common.

    `cycles` are the fixed ones, 0 where the rules of a core say more; `latency` and `port` are the Cortex-M7's, of
    `dual_issue_port`.
    """

    cycles: int = 0
    latency: int = 1
    port: str = "X"
    names: tuple[str, ...] = ()


KINDS = checked(dict[str, Kind], read_json(Path(__file__).with_name("kinds.json"), "table of kinds"), "kinds.json")
LATENCY = {name: kind.latency for name, kind in KINDS.items()}
BRANCHES = tuple(name for name, kind in KINDS.items() if kind.port == "B")


class LoadPrice(NamedTuple):
    """What a load may cost beyond its block's static cycles, decided by its address when it runs."""

    position: int
    chained: bool
    after_stack: bool
    conditional_cycles: int


class BlockPrice(NamedTuple):
    """Static cost of a basic block; `taken_cycles` come on top when it is left by a branch."""

    cycles: int
    taken_cycles: int
    loads: tuple[LoadPrice, ...]


def model_name(cpu: str) -> str:
    """Returns the name and version of the timing model of a CPU, as it stands in every record."""
    return f"{cpu}-{CORES[cpu].timing_model}-{CORES[cpu].model_version}"


def cycles_kind(cpu: str) -> str:
    """Returns "modelled", or "modelled-estimate" for a CPU whose pipeline we only estimate."""
    return CORES[cpu].cycles_kind


@cache
def error_band(cpu: str) -> tuple[float, float]:
    """Returns the least and the most that a board's cycles are of the modelled ones, by what validation.json holds of a CPU."""
    low, high = json.loads(Path(__file__).with_name("validation.json").read_text())["board_over_model"][cpu]
    return low, high


def say_band(band: Sequence[float]) -> str:
    """Returns an error band as people read it."""
    return f"a board takes {band[0]:.2f} to {band[1]:.2f} of the modelled cycles"


def price_block(rules: Rules, block: Sequence[Instruction], address: int = 0) -> BlockPrice:
    """Returns the static cost of a basic block at `address`. The first instruction is priced as if nothing had gone before."""
    cycles = divider_busy_until = 0
    loads: list[LoadPrice] = []
    previous = NOTHING
    chain_hooked = False
    for position, instruction in enumerate(block):
        chained = _chains(rules, previous, instruction)
        cost = _cost(rules, previous, instruction, chained)
        if _uses_float(instruction):
            cost += max(0, divider_busy_until - cycles)
        skipped = instruction.conditional and not instruction.to_pc
        cycles += 1 if skipped else cost
        if instruction.kind == "float-divide":
            divider_busy_until = cycles + rules.float_divide - 1
        if instruction.kind in LOADS:
            extra = cost - 1 if skipped else 0
            looked_at = instruction.base != STACK_POINTER or (chained and chain_hooked) or extra != 0
            if looked_at:
                loads.append(LoadPrice(position, chained, chained and not chain_hooked, extra))
            chain_hooked = looked_at
        previous = instruction
    cycles += rules.wide_row * _wide_rows(block, address)
    if rules.mispredict:
        cycles = _dual_issue_cycles(rules, block)
    return BlockPrice(cycles, _taken_cycles(rules, block), tuple(loads))


def _wide_rows(block: Sequence[Instruction], address: int) -> int:
    """How many rows of 3 or more (4 or more stores) 32-bit instructions lie across word boundaries, the block's first aside."""
    rows = row = stores = 0
    for position, instruction in enumerate(block):
        if instruction.size == 2:
            row = stores = 0
        elif address & 2 and (row or position):
            row += 1
            rows += row == (4 if stores == 3 else 3) and not (row == 3 and stores == 2 and instruction.kind == "store")
            stores += row <= 3 and instruction.kind == "store"
        address += instruction.size
    return rows


def _taken_cycles(rules: Rules, block: Sequence[Instruction]) -> int:
    before, last = ([NOTHING, *block])[-2:]
    if not last.to_pc or last.kind in ("branch", "branch-if", "call"):
        waits = last.kind == "branch-if" and (before.sets_flags or before.writes & last.reads)
        return rules.taken + (1 if waits and _folds(rules, before, last) else 0)
    return rules.taken_register if last.kind == "indirect" else rules.taken_indirect


def _folds(rules: Rules, previous: Instruction, instruction: Instruction) -> bool:
    """Whether a branch issues beside the instruction before it: both of 16 bits, on a core that can."""
    branches = rules.fold_branch and instruction.kind in ("branch", "branch-if")
    return branches and instruction.size == previous.size == 2


def _uses_float(instruction: Instruction) -> bool:
    return instruction.kind.startswith("float") or bool((instruction.reads | instruction.writes) >> 32)


def _chains(rules: Rules, previous: Instruction, instruction: Instruction) -> bool:
    """Whether this load's address cycle hides behind the load before it."""
    single = previous.kind == instruction.kind == "load" and previous.words == instruction.words == 1
    return rules.chain and single and not instruction.address_reads & previous.writes


def _cost(rules: Rules, previous: Instruction, instruction: Instruction, chained: bool) -> int:
    """Cycles of an instruction, after the one before it."""
    kind = instruction.kind
    if kind == "divide":
        return rules.divide
    if kind == "it":
        return 0 if previous.size == 2 else 1
    if _folds(rules, previous, instruction):
        return 0
    wait = _wait(rules, previous, instruction)
    if kind.endswith("-many") or (kind in ("load", "store") and instruction.words > 1):
        return rules.many + instruction.words + wait
    if kind == "load":
        return rules.load - chained + wait
    if kind == "store":
        hidden = rules.chain and previous.kind == "load" and previous.words == 1
        return (rules.store_index if instruction.index != NO_REGISTER else 1) + wait - hidden
    if kind == "float-mac":
        return rules.float_mac + wait
    return KINDS[kind].cycles + wait + (rules.mac_use if kind == "mul" and instruction.sets_flags else 0)


def _wait(rules: Rules, previous: Instruction, instruction: Instruction) -> int:
    """Cycles lost to the instruction before: address or operand not ready, store port busy."""
    wait = 0
    needed, after_load = previous.writes & instruction.reads, previous.kind in LOADS
    # A loaded address only breaks the chain of loads; one that arithmetic has just made comes a cycle too late.
    if instruction.address_reads & previous.writes and not after_load and instruction.base != STACK_POINTER:
        wait += rules.address_wait
    early = needed & instruction.address_reads if instruction.kind.startswith("store") else needed  # what is stored may be late
    if after_load and early & ~(instruction.adds if instruction.kind == "mac" else 0):
        wait += rules.load_use
    if (previous.kind in ("mac", "mul") or previous.late) and early & ~instruction.adds:
        wait += rules.mac_use
    addend = instruction.writes if instruction.kind == "float-mac" else 0  # is needed a cycle later than the factors
    if rules.float_busy and previous.kind == "float-mac":
        wait += rules.float_busy if _uses_float(instruction) else 0
    elif previous.kind in ("float", "float-mac") and (needed & ~addend) >> 32:
        wait += rules.float_use
    if instruction.kind == "load" and previous.kind == "store":
        wait += rules.load_after_store
    return wait


def _dual_issue_cycles(rules: Rules, block: Sequence[Instruction]) -> int:
    """Cycles of a block on an in-order dual-issue pipeline with a scoreboard: the Cortex-M7 estimate."""
    ready: dict[int, int] = {}
    now, slots, used = 0, 0, ""
    for instruction in block:
        # A sum is needed a stage after the factors: from the product before, without a wait.
        added = (instruction.adds or instruction.reads & instruction.writes) if instruction.kind == "mac" else 0
        needed = _registers(instruction.reads | instruction.address_reads)
        earliest = max([now, *(ready.get(register, 0) - (added >> register & 1) for register in needed)])
        group = dual_issue_port(instruction)
        if earliest > now or slots == 2 or not ports_pair(used, group):
            now, slots, used = max(earliest, now + (1 if slots else 0)), 0, ""
        slots, used = slots + 1, used + group
        if group == "X":
            alone = {"divide": rules.divide, "float-divide": rules.float_divide, "barrier": 4}.get(instruction.kind, 1)
            now, slots, used = now + max(alone, (instruction.words + 1) // 2), 0, ""
        done = now + LATENCY[instruction.kind] - (1 if group == "X" else 0)
        ready.update(dict.fromkeys(_registers(instruction.writes), done))
    return now + (1 if slots else 0)


def _registers(mask: int) -> list[int]:
    return [register for register in range(64) if mask >> register & 1]


def dual_issue_port(instruction: Instruction) -> str:
    """The port an instruction needs: M multiply, D bit field and DSP, L load, S store, F float, B branch, A any, X alone."""
    one_word = instruction.words == 1 or instruction.kind not in ("load", "store")
    return KINDS[instruction.kind].port if one_word else "X"


def ports_pair(used: str, group: str) -> bool:
    """Whether an instruction may issue beside the one already in this cycle."""
    pair = used + group
    return len(pair) < 2 or ("X" not in pair and pair not in ("MM", "SS", "FF", "BB", "DD", "MS", "SM"))
