"""Boards as data: memory map, clock and timing constants of each STM32 that tinyredux knows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOARD_FOLDER = Path(__file__).parent / "board_files"


@dataclass(frozen=True)
class Memory:
    """One block of memory as the CPU addresses it. `base` and `size_bytes` in bytes."""

    name: str
    base: int
    size_bytes: int


@dataclass(frozen=True)
class FlashTiming:
    """Flash behind its accelerator: lines kept for code and data (no data lines: code and data share theirs).

    A missed line costs `miss_cycles`, or the wait states when not given.
    """

    wait_states: int
    line_bytes: int
    code_lines: int
    data_lines: int
    prefetch: bool
    miss_cycles: int | None = None

    def __post_init__(self) -> None:
        if self.line_bytes < 4 or self.line_bytes & (self.line_bytes - 1):
            raise ValueError(f"flash_timing: line_bytes is {self.line_bytes}, expected a power of two from 4 up")
        if min(self.wait_states, self.code_lines, self.data_lines, self.miss_cycles or 0) < 0:
            raise ValueError("flash_timing: wait_states, code_lines, data_lines and miss_cycles are 0 or more")


@dataclass(frozen=True)
class Console:
    """The UART that the board's USB socket shows as a serial port: registers, pins ("PB10") and their alternate function."""

    kind: str
    base: int
    tx: str
    rx: str
    alternate: int

    def __post_init__(self) -> None:
        if self.kind not in CONSOLES:
            raise ValueError(f"console kind is {self.kind!r}, expected one of {', '.join(CONSOLES)}")
        for pin in (self.tx, self.rx):
            if not re.fullmatch(r"P[A-K](1[0-5]|[0-9])", pin):
                raise ValueError(f"console pin is {pin!r}, expected a port letter and a number such as 'PB10'")


@dataclass(frozen=True)
class Board:
    """A board: what the planner, the linker, the simulator and the report need to know of it."""

    name: str
    title: str
    cpu: str
    mcu: str
    clock_hz: int
    pio_env: str
    flash: Memory
    sram: tuple[Memory, ...]
    flash_timing: FlashTiming
    uart: Console
    oscillator_hz: int
    oscillator_bypass: bool
    qemu_machine: str | None

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set('/\\"\n'):
            raise ValueError(f"board name is {self.name!r}, expected letters, digits and underscores: folders and C bear it")
        if min(self.clock_hz, self.flash.size_bytes, *(block.size_bytes for block in self.sram), 1) < 1:
            raise ValueError(f"board {self.name}: clock_hz and size_bytes are numbers above 0")
        if self.cpu not in CPUS:
            raise ValueError(f"board {self.name}: cpu is {self.cpu!r}, expected one of {', '.join(CPUS)}")
        if not self.sram:
            raise ValueError(f"board {self.name}: no SRAM; give at least one block under 'sram'")

    @property
    def flash_bytes(self) -> int:
        """Flash size in bytes."""
        return self.flash.size_bytes

    @property
    def sram_bytes(self) -> int:
        """Size in bytes of the first SRAM block: where .data, .bss, the arena and the stack live."""
        return self.sram[0].size_bytes

    @property
    def console(self) -> str:
        """The kind of the console's UART, one of CONSOLES."""
        return self.uart.kind

    @property
    def console_base(self) -> int:
        """The address of the console's UART."""
        return self.uart.base

    @property
    def family(self) -> str:
        """The chip family, which chooses the port: "stm32f4" and so on."""
        return self.mcu[:7].lower()


CPUS = ("cortex-m4", "cortex-m7", "cortex-m33")
CONSOLES = ("usart-v1", "usart-v2")  # v1: SR/DR (STM32F4); v2: ISR/RDR/TDR (F7, L4, U5)


def _number(value: Any) -> int:
    return int(value, 0) if isinstance(value, str) else int(value)


def _memory(name: str, entry: dict[str, Any]) -> Memory:
    return Memory(entry.get("name", name), _number(entry["base"]), _number(entry["size_bytes"]))


def board_from_json(path: Path) -> Board:
    """Returns the board that a JSON file describes. Raises ValueError naming the field that is wrong."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        return Board(
            name=fields["name"],
            title=fields.get("title", fields["name"]),
            cpu=fields["cpu"],
            mcu=fields["mcu"],
            clock_hz=_number(fields["clock_hz"]),
            pio_env=fields.get("pio_env", ""),
            flash=_memory("flash", fields["flash"]),
            sram=tuple(_memory("sram", block) for block in fields["sram"]),
            flash_timing=FlashTiming(**fields["flash_timing"]),
            uart=Console(**{**fields["console"], "base": _number(fields["console"]["base"])}),
            oscillator_hz=_number(fields.get("oscillator_hz", 0)),
            oscillator_bypass=bool(fields.get("oscillator_bypass", False)),
            qemu_machine=fields.get("qemu_machine"),
        )
    except KeyError as missing:
        raise ValueError(f"board file {path}: field {missing} is missing; see {BOARD_FOLDER} for examples") from None
    except (TypeError, ValueError) as wrong:
        raise ValueError(f"board file {path}: {wrong}; see {BOARD_FOLDER} for examples") from None


def board_names() -> list[str]:
    """Returns the names of the built-in boards."""
    return sorted(path.stem for path in BOARD_FOLDER.glob("*.json"))


def find_board(name: str) -> Board:
    """Returns a built-in board by name, or the one in a user's file when `name` ends in .json."""
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"board file {name} does not exist")
        return board_from_json(path)
    path = BOARD_FOLDER / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"unknown board {name!r}; known: {', '.join(board_names())}, or a path to a .json file")
    return board_from_json(path)
