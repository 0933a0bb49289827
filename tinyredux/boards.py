"""Boards as data: memory map, clock and timing constants of each microcontroller board that tinyredux knows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tinyredux.files import checked, expect, read_json, require

STACK_RESERVE_BYTES = 2048  # the link fails when less SRAM than this is left for the stack
BOARD_FOLDER = Path(__file__).parent / "board_files"


COPIES = ("code", "weights")
FOR_MEMORY = ((0, 0x40000000), (0x60000000, 0xA0000000))  # what a Cortex-M leaves to code and data


@dataclass(frozen=True)
class Memory:
    """One block of memory as the CPU addresses it. `base` and `size_bytes` in bytes.

    `copies` says which of COPIES start-up may put there from flash, because the core reads them there without a wait: "code"
    where instructions have a bus of their own, "weights" where data has. `same_as`: where these bytes begin in another block, if
    they are seen there too.
    """

    name: str
    base: int
    size_bytes: int
    copies: tuple[str, ...] = ()
    same_as: int | None = None

    def __post_init__(self) -> None:
        _check_text("memory's name", self.name, r"[A-Za-z]\w*", "a letter, then letters, digits and underscores")
        _check_range(f"memory {self.name}", 1, 1 << 27, size_bytes=self.size_bytes)
        inside = any(low <= self.base and self.base + self.size_bytes <= high for low, high in FOR_MEMORY)
        expected = "below 0x40000000, where peripherals begin, or from 0x60000000 to 0xa0000000"
        require(inside, f"memory {self.name}: {self.size_bytes} bytes from {self.base:#x}, expected bytes {expected}")
        known = set(self.copies) <= set(COPIES)
        require(known, f"memory {self.name}: copies is {list(self.copies)}, expected some of {', '.join(COPIES)}")

    def holds(self, base: int, size_bytes: int) -> bool:
        """Whether bytes lie in it."""
        return self.base <= base and base + size_bytes <= self.base + self.size_bytes


@dataclass(frozen=True)
class FlashTiming:
    """Flash behind its accelerator: lines kept for code and data (no data lines: code and data share theirs).

    A missed line costs `miss_cycles`, or the wait states when not given. Where `next_cycles` is not 0, it costs these if it lies
    behind the line that was fetched a moment ago: a serial flash goes on without a new command.
    """

    wait_states: int
    line_bytes: int
    code_lines: int
    data_lines: int
    prefetch: bool
    miss_cycles: int | None = None
    next_cycles: int = 0

    def __post_init__(self) -> None:
        of_two = self.line_bytes >= 4 and not self.line_bytes & (self.line_bytes - 1)
        require(of_two, f"flash_timing: line_bytes is {self.line_bytes}, expected a power of two from 4 up")
        _check_range("flash_timing", 0, 15, wait_states=self.wait_states)
        sizes = {"line_bytes": self.line_bytes, "code_lines": self.code_lines, "data_lines": self.data_lines}
        _check_range("flash_timing", 0, 4096, **sizes, miss_cycles=self.miss_cycles or 0, next_cycles=self.next_cycles)


@dataclass(frozen=True)
class Console:
    """The UART that a computer sees as a serial port: kind and address of its registers, pins ("PB10") and their function."""

    kind: str
    base: int
    tx: str
    rx: str
    alternate: int = 0

    def __post_init__(self) -> None:
        require(self.kind in CONSOLES, f"console kind is {self.kind!r}, expected one of {', '.join(CONSOLES)}")
        for pin in (self.tx, self.rx):
            _check_text("console pin", pin, *CONSOLES[self.kind])
        _check_range("console", 0, 15, alternate=self.alternate)
        _check_range("console", 0, (1 << 32) - 1, base=self.base)


@dataclass(frozen=True, repr=False)
class Board:
    """A board: what the planner, the linker, the simulator and the report need to know of it. Chapter 13.

    `upload` is one of UPLOADS; `source`: where the facts stand, and what of them was never tried.
    """

    name: str
    title: str
    cpu: str
    mcu: str
    clock_hz: int
    flash: Memory
    sram: tuple[Memory, ...]
    flash_timing: FlashTiming
    uart: Console = field(metadata={"name": "console"})
    oscillator_hz: int
    oscillator_bypass: bool
    qemu_machine: str | None
    upload: str
    source: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name = f"board {self.name}"
        _check_text("board name", self.name, r"(?![.])[\w.+-]{1,100}", "letters, digits and underscores: folders and C bear it")
        _check_text(f"{name}: mcu", self.mcu, f"(?i:{FAMILY}).*", "a name that begins with stm32, nrf52 or rp2350")
        require("*/" not in self.title, f"{name}: title is {self.title!r}, expected text without */: a comment in C bears it")
        _check_range(name, 1, (1 << 32) - 1, clock_hz=self.clock_hz)
        _check_range(name, 0, (1 << 32) - 1, oscillator_hz=self.oscillator_hz)
        for what, value, known in (("cpu", self.cpu, CPUS), ("upload", self.upload, UPLOADS)):
            require(value in known, f"{name}: {what} is {value!r}, expected one of {', '.join(known)}")
        require(self.sram, f"{name}: no SRAM; give at least one block under 'sram'")
        blocks = sorted((self.flash, *self.sram), key=lambda block: block.base)
        for low, high in pairwise(blocks):
            apart = low.base + low.size_bytes <= high.base
            require(apart, f"{name}: memories {low.name} and {high.name} overlap from {high.base:#x}")
        first = self.sram[0]
        for block in self.sram:
            there = block.same_as is None or first.holds(block.same_as, block.size_bytes)
            require(there, f"{name}: memory {block.name} is the same as {block.same_as or 0:#x}, expected bytes of {first.name}")
            apart = "weights" not in block.copies or block is first
            require(apart, f"{name}: memory {block.name} is to hold copies of weights, expected {first.name}, the first block")
        names = [block.name for block in blocks]
        different = len({each.upper() for each in names} | {"FLASH"}) >= len(names)
        require(different, f"{name}: two memories have one name; found {', '.join(names)}")

    def __repr__(self) -> str:
        """Returns the board in a line."""
        return f"{self.name}: {self.title}, {self.flash_bytes:,} bytes of flash, {self.sram_bytes:,} of SRAM"

    @property
    def flash_bytes(self) -> int:
        """Flash size in bytes."""
        return self.flash.size_bytes

    @property
    def sram_bytes(self) -> int:
        """Size in bytes of the first SRAM block: where .data, .bss, the arena and the stack live."""
        return self.sram[0].size_bytes

    @property
    def code_ram(self) -> Memory | None:
        """The RAM that code may be copied to; None where there is none that the core fetches from without a wait."""
        return next((block for block in self.sram if "code" in block.copies), None)

    @property
    def family(self) -> str:
        """The chip family, which chooses the port: "stm32f4" and so on."""
        return re.match(FAMILY, self.mcu.lower())[0]  # type: ignore[index]


FAMILY = "stm32..|nrf52|rp2350"
CPUS = ("cortex-m4", "cortex-m7", "cortex-m33")
UPLOADS = ("stlink", "jlink", "bossa", "uf2")  # how a program gets onto the board: device/flash.py
STM32_PIN = r"P[A-K](1[0-5]|[0-9])", "a port letter and a number such as 'PB10'"
CONSOLES = {  # what a pin is called. v1: SR/DR (STM32F4); v2: ISR/RDR/TDR (F7, H7, L4, U5); nRF52's UART; Arm's PrimeCell
    "usart-v1": STM32_PIN, "usart-v2": STM32_PIN, "nrf-uart": (r"P[01]\.([0-2][0-9]|3[01])", "a port and a pin such as 'P0.06'"),
    "pl011": (r"GPIO([1-3]?[0-9]|4[0-7])", "a pin such as 'GPIO0'"),
}  # fmt: skip


def _check_range(place: str, low: int, high: int, **numbers: int) -> None:
    """Raises ValueError for the first number outside low to high, both included."""
    for name, number in numbers.items():
        require(low <= number <= high, f"{place}: {name} is {number}, expected {low} to {high}")


def _check_text(what: str, text: str, pattern: str, wanted: str) -> None:
    """Raises ValueError for a text that is not of the pattern, which `wanted` says in words."""
    require(re.fullmatch(pattern, text, re.ASCII), f"{what} is {text!r}, expected {wanted}")


def board_from_json(path: Path) -> Board:
    """Returns the board that a JSON file describes. Raises ValueError naming the field that is wrong."""
    content = read_json(path, "board file")
    content.pop("pio_env", None)  # of older files: PlatformIO's environment has the board's name
    content = {"title": content.get("name"), "qemu_machine": None, "upload": "stlink"} | content
    content = {"oscillator_hz": 0, "oscillator_bypass": False} | content
    if isinstance(flash := content.get("flash"), dict):
        content["flash"] = {"name": "flash"} | flash
    if isinstance(blocks := content.get("sram"), list):
        content["sram"] = [{"name": "sram"} | block if isinstance(block, dict) else block for block in blocks]
    return checked(Board, content, f"board file {path}", f"see {BOARD_FOLDER} for examples")


def user_folder() -> Path:
    """Returns where a user's own boards lie: $TINYREDUX_BOARDS, else tinyredux/boards in XDG_CONFIG_HOME or ~/.config."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    return Path(os.environ.get("TINYREDUX_BOARDS") or home / "tinyredux" / "boards")


def _files(every: bool) -> dict[str, Path]:
    folders = (user_folder(), BOARD_FOLDER / "more", BOARD_FOLDER)  # what is built in wins over a user's of the same name
    return {path.stem: path for folder in folders[0 if every else 2 :] for path in sorted(folder.glob("*.json"))}


def board_names(every: bool = False) -> list[str]:
    """Returns the names of the book's boards; with `every`, of all that are built in and of the user's folder. Chapter 0."""
    return sorted(_files(every))


def find_board(name: str) -> Board:
    """Returns a board by its name, or the one in a user's file when `name` ends in .json. Chapter 0."""
    expect(str, name, "the board", "such as 'disco_f469ni'")
    if name.endswith(".json"):
        return board_from_json(Path(name))
    known = _files(every=True)
    require(name in known, f"unknown board {name!r}; known: {', '.join(sorted(known))}, or a path to a .json file")
    board = board_from_json(known[name])
    require(board.name == name, f"board file {known[name]}: name is {board.name!r}, expected {name!r}, as the file is called")
    return board
