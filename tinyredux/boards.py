"""Boards as data: memory map, clock and timing constants of each STM32 that tinyredux knows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tinyredux.files import checked, expect, read_json

STACK_RESERVE_BYTES = 2048  # the link fails when less SRAM than this is left for the stack
BOARD_FOLDER = Path(__file__).parent / "board_files"


FOR_MEMORY = ((0, 0x40000000), (0x60000000, 0xA0000000))  # what a Cortex-M leaves to code and data


@dataclass(frozen=True)
class Memory:
    """One block of memory as the CPU addresses it. `base` and `size_bytes` in bytes."""

    name: str
    base: int
    size_bytes: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII):
            raise ValueError(f"memory's name is {self.name!r}, expected a letter, then letters, digits and underscores")
        if not 1 <= self.size_bytes <= 1 << 27 or not any(
            low <= self.base and self.base + self.size_bytes <= high for low, high in FOR_MEMORY
        ):
            raise ValueError(
                f"memory {self.name}: base is {self.base:#x} and size_bytes is {self.size_bytes}, expected 1 byte to 128 MiB "
                "below 0x40000000, where peripherals begin, or from 0x60000000 to 0xa0000000"
            )


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
        numbers = (self.wait_states, self.code_lines, self.data_lines, self.miss_cycles or 0)
        if min(numbers) < 0 or max(*numbers, self.line_bytes) > 4096 or self.wait_states > 15:
            raise ValueError(
                "flash_timing: wait_states are 0 to 15, code_lines, data_lines, miss_cycles and line_bytes 0 to 4096; found "
                f"{self.wait_states}, {self.code_lines}, {self.data_lines}, {self.miss_cycles} and {self.line_bytes}"
            )


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
        if not 0 <= self.alternate <= 15 or not 0 <= self.base < 1 << 32:
            raise ValueError(
                f"console: alternate is {self.alternate}, expected 0 to 15; base is {self.base:#x}, expected 32 bits"
            )


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
    uart: Console = field(metadata={"name": "console"})
    oscillator_hz: int
    oscillator_bypass: bool
    qemu_machine: str | None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+-]{1,100}", self.name, re.ASCII) or self.name.startswith("."):
            raise ValueError(f"board name is {self.name!r}, expected letters, digits and underscores: folders and C bear it")
        if not self.mcu.lower().startswith("stm32"):
            raise ValueError(
                f"board {self.name}: mcu is {self.mcu!r}, expected a name that begins with stm32, such as stm32f469nih6"
            )
        if "*/" in self.title:
            raise ValueError(f"board {self.name}: title is {self.title!r}, expected text without */: a comment in C bears it")
        if not 1 <= self.clock_hz < 1 << 32 or not 0 <= self.oscillator_hz < 1 << 32:
            raise ValueError(
                f"board {self.name}: clock_hz is {self.clock_hz} and oscillator_hz {self.oscillator_hz}, expected 32 bits, "
                "and a clock above 0"
            )
        if self.cpu not in CPUS:
            raise ValueError(f"board {self.name}: cpu is {self.cpu!r}, expected one of {', '.join(CPUS)}")
        if not self.sram:
            raise ValueError(f"board {self.name}: no SRAM; give at least one block under 'sram'")
        blocks = sorted((self.flash, *self.sram), key=lambda block: block.base)
        for low, high in pairwise(blocks):
            if low.base + low.size_bytes > high.base:
                raise ValueError(f"board {self.name}: memories {low.name} and {high.name} overlap from {high.base:#x}")
        if len({block.name.upper() for block in blocks} | {"FLASH"}) < len(blocks):
            raise ValueError(f"board {self.name}: two memories have one name; found {', '.join(block.name for block in blocks)}")

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


def board_from_json(path: Path) -> Board:
    """Returns the board that a JSON file describes. Raises ValueError naming the field that is wrong."""
    content = read_json(path, "board file")
    content = {"title": content.get("name"), "pio_env": "", "qemu_machine": None} | content
    content = {"oscillator_hz": 0, "oscillator_bypass": False} | content
    if isinstance(flash := content.get("flash"), dict):
        content["flash"] = {"name": "flash"} | flash
    if isinstance(blocks := content.get("sram"), list):
        content["sram"] = [{"name": "sram"} | block if isinstance(block, dict) else block for block in blocks]
    return checked(Board, content, f"board file {path}", f"see {BOARD_FOLDER} for examples")


def board_names() -> list[str]:
    """Returns the names of the built-in boards."""
    return sorted(path.stem for path in BOARD_FOLDER.glob("*.json"))


def find_board(name: str) -> Board:
    """Returns a built-in board by name, or the one in a user's file when `name` ends in .json."""
    expect(str, name, "the board", "such as 'disco_f469ni'")
    if name.endswith(".json"):
        return board_from_json(Path(name))
    path = BOARD_FOLDER / f"{name}.json"
    if name not in board_names():
        raise ValueError(f"unknown board {name!r}; known: {', '.join(board_names())}, or a path to a .json file")
    return board_from_json(path)
