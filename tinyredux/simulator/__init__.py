"""Simulated boards: any bare-metal ELF, its exact instruction count and its modelled cycles.

`run.simulate` is the door; `machine` is a board of core, memory and peripherals; `timing` holds the timing models with their
error bands (validation.json), `decode` and `pricing` apply them to code; unicorn executes the instructions. Chapter 5.
"""

from tinyredux.simulator.elf import read_elf
from tinyredux.simulator.hooks import MissingTool
from tinyredux.simulator.timing import (
    LATENCY,
    NO_REGISTER,
    RULES,
    Instruction,
    Rules,
    cycles_kind,
    dual_issue_port,
    error_band,
    model_name,
    ports_pair,
    price_block,
    say_band,
)

__all__ = [
    "LATENCY", "NO_REGISTER", "RULES", "Instruction", "MissingTool", "Rules", "cycles_kind", "dual_issue_port", "error_band",
    "machine", "model_name", "ports_pair", "price_block", "read_elf", "run", "say_band",
]  # fmt: skip
