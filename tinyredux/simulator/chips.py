"""Chip families as data (chips.json): their memories beside those of a board file, and what their registers answer."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tinyredux.files import checked, read_json

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Ready:
    """A register whose bits follow others: (bit written, bit that answers) pairs, bits always set, bits never set."""

    address: int
    follow: Pairs = ()
    ones: int = 0
    zeros: int = 0


@dataclass(frozen=True)
class Chip:
    """A chip family; the defaults are those of one that chips.json does not know.

    `ready`: clock, power and flash registers. `flash_control`: address of FLASH_ACR, or what stands for it, of which `cache_bits`
    switch the cache of code, and that of data, on. `flash_alias`: where the flash is seen too; null: nowhere. `ram`, `rom`:
    (base, size) of memories that read as zero at reset, such as external RAM, boot code and identifiers. `interrupts`: (base,
    number) of UARTs, where they are not those of most families.
    """

    ready: tuple[Ready, ...] = ()
    device_id: int = 0
    flash_control: int = 0x40022000
    flash_control_at_reset: int = 0
    cache_bits: tuple[int, ...] = ()
    flash_alias: int | None = 0
    ram: Pairs = ()
    rom: Pairs = ((0x1FFF0000, 0x8000),)
    interrupts: Pairs = ()


@cache
def chip_of(family: str) -> Chip:
    """Returns what is known of a chip family such as "stm32f4"."""
    known = read_json(Path(__file__).with_name("chips.json"), "table of chips")
    return checked(Chip, known.get(family, {}), f"chip family {family}")
