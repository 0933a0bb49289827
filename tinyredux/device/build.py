"""Sources and flags to firmware: the cross compiler or PlatformIO for boards, the host compiler for a shared library.

Flags and source lists live in platformio.ini and are read from there. Every object file is kept under a name made
from the hash of all that goes into it, so a build that was made before takes no time.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tinyredux.boards import STACK_RESERVE_BYTES, Board, Console
from tinyredux.device import platformio
from tinyredux.files import IS_CHECKOUT, ROOT, cache_folder, locked, partial_name, write_whole
from tinyredux.simulator import MissingTool as MissingTool
from tinyredux.simulator import read_elf

CROSS_COMPILER = "arm-none-eabi-gcc"


class BuildError(RuntimeError):
    """The compiler or linker refused; the message carries its output."""


class DoesNotFit(BuildError):  # noqa: N818
    """The program is larger than the board's memory."""

    def __init__(
        self, section: str, region: str, needed_bytes: int, there_bytes: int, board: str, largest: str,
        advice: str = "take a smaller network or a larger board",
    ) -> None:  # fmt: skip
        super().__init__(
            f"section {section} does not fit: region {region} needs {needed_bytes} bytes, "
            f"{board} has {there_bytes} (largest: {largest}); {advice}"
        )
        self.section, self.region, self.needed_bytes, self.there_bytes = section, region, needed_bytes, there_bytes


@dataclass(frozen=True)
class Firmware:
    """A program for a board. Sizes in bytes from the ELF: text with vectors, constants, .data, .bss without stack, and what
    start-up copies to RAM beside .data."""

    elf: Path
    text_bytes: int
    rodata_bytes: int
    data_bytes: int
    bss_bytes: int
    compiler: str
    flags: str
    copied_bytes: int = 0

    @property
    def flash_bytes(self) -> int:
        """Bytes that the linker has placed in flash."""
        return self.text_bytes + self.rodata_bytes + self.data_bytes + self.copied_bytes


def firmware_folder() -> Path:
    """Returns the folder of the firmware's sources. Raises MissingTool where the package was copied without them."""
    if not (ROOT / "platformio.ini").is_file() or not (ROOT / "firmware").is_dir():
        raise MissingTool(f"{ROOT} holds no firmware sources; install tinyredux from a wheel, or a checkout by: pip install -e .")
    return ROOT / "firmware"


def check_is_checkout(what: str) -> None:
    """Raises MissingTool where tinyredux was installed from a wheel, and `what` needs what only a checkout has."""
    if not IS_CHECKOUT:
        raise MissingTool(f"{what} needs a checkout, and this tinyredux was installed from a wheel; in a clone, run: make setup")


def default_build_folder() -> Path:
    """Returns where builds go when the caller names no folder: $TINYREDUX_CACHE/build, else build/ in the checkout.

    An installed package is never written to: its builds go to the cache folder.
    """
    return (ROOT if IS_CHECKOUT and not os.environ.get("TINYREDUX_CACHE") else cache_folder()) / "build"


def option(section: str, key: str) -> str:
    """Returns an option of platformio.ini with every ${section.key} in it replaced."""
    text = _platformio_ini()[section][key]
    return re.sub(r"\$\{([\w-]+)\.(\w+)\}", lambda match: option(match[1], match[2]), text)


@cache
def _platformio_ini() -> configparser.ConfigParser:
    firmware_folder()
    parser = configparser.ConfigParser(interpolation=None, strict=True, inline_comment_prefixes=(" ;",))
    parser.read(ROOT / "platformio.ini")
    return parser


def board_flags(board: Board) -> list[str]:
    """Returns the compiler flags for a board, without paths."""
    return option("flags", "common").split() + option(board.cpu, "flags").split()


def source_files(kind: str) -> list[Path]:
    """Returns the firmware's own sources for a chip family ("stm32f4", ...) or "host", relative to the checkout.

    "stm32f4 mlperf": those of the program that answers the runner of MLPerf Tiny, in the place of the usual one.
    """
    families = [name for name in _platformio_ini()["sources"] if name not in ("common", "host", "mlperf")]
    if (family := kind.split()[0]) not in (*families, "host"):
        raise ValueError(f"no port for chip family {family!r}; there are ports for {', '.join(families)} (firmware/ports)")
    folder, found = firmware_folder(), list[Path]()
    for sign, pattern in re.findall(r"([+-])<(.+?)>", " ".join(option("sources", part) for part in kind.split())):
        paths = sorted(folder.glob(pattern))
        found = found + paths if sign == "+" else [path for path in found if path not in paths]
    return [path.relative_to(ROOT) for path in found]


def linker_script(board: Board) -> str:
    """Returns the linker script of a board: firmware/boards/memory.ld.in with its memory map."""
    names = ["FLASH", *(block.name.upper() for block in board.sram)]
    lines = [
        f"    {name} ({'rx' if name == 'FLASH' else 'rwx'}) : ORIGIN = {block.base:#010x}, LENGTH = {block.size_bytes}"
        for name, block in zip(names, (board.flash, *board.sram), strict=True)
    ]
    facts: dict[str, str | int] = {"memory": "\n".join(lines), "sram": names[1], "stack_reserve": STACK_RESERVE_BYTES}
    return _render("memory.ld.in", board, **facts, copied_code=_copied_code(board), copied_weights=_copied_weights(board))


def _copied_code(board: Board) -> str:
    """Returns the section of the code that start-up copies to RAM, for a board that has RAM for code."""
    if board.code_ram is None:
        return ""
    return f"""    .tr_code : ALIGN(16)
    {{
        tr_code_start = .;
        *(SORT_BY_NAME(.tr_code*))
        . = ALIGN(8);
        tr_code_end = .;
    }} > {board.code_ram.name.upper()} AT > FLASH
    tr_code_load = LOADADDR(.tr_code);
"""


def _copied_weights(board: Board) -> str:
    """Returns the section of the weights that start-up copies to RAM, behind .bss; beyond the code that is copied, where its
    bytes are also some of the first SRAM's."""
    text, shared = "    tr_copies = tr_bss_end;\n", board.code_ram
    if shared is None or shared.same_as is None:
        if "weights" not in board.sram[0].copies:
            return ""
    else:
        start, end = f"{shared.same_as:#x}", f"{shared.same_as + shared.size_bytes:#x}"
        text = f"""    tr_copies = SIZEOF(.tr_code) > 0 ? {end} : tr_bss_end;
    ASSERT(tr_copies == tr_bss_end || tr_bss_end <= {start}, "code would be copied to bytes of .bss")
"""
    return f"""{text}    .tr_weights ALIGN(tr_copies, 16) :
    {{
        tr_weights_start = .;
        *(.tr_weights*)
        . = ALIGN(8);
        tr_weights_end = .;
        tr_stack_limit = .;
    }} > {board.sram[0].name.upper()} AT > FLASH
    tr_weights_load = LOADADDR(.tr_weights);
"""


def board_header(board: Board) -> str:
    """Returns the C header of a board: firmware/boards/board.h.in with its clock, flash and console."""
    uart = board.uart
    clock = {"clock_hz": board.clock_hz, "wait_states": board.flash_timing.wait_states}
    oscillator = {"oscillator_hz": board.oscillator_hz, "oscillator_bypass": int(board.oscillator_bypass)}
    version = {"usart-v1": 1, "usart-v2": 2}.get(uart.kind, 0)  # 0: the family's own
    copied = {"TR_COPIES_CODE": _copied_code(board), "TR_COPIES_WEIGHTS": _copied_weights(board)}
    defines = "".join(f"#define {name} /* memory.ld has RAM for it */\n" for name, text in copied.items() if text)
    console: dict[str, str | int] = {"copied": defines, "console_version": version, "console_base": f"{uart.base:#010x}"}
    return _render("board.h.in", board, **clock, **oscillator, **console, tx=_pin(uart, uart.tx), rx=_pin(uart, uart.rx))


def _pin(uart: Console, pin: str) -> str:
    """Returns a pin in C: of an STM32 by letter, number and alternate function, else its number of all."""
    if uart.kind.startswith("usart"):
        return f"TR_PIN('{pin[1]}', {pin[2:]}u, {uart.alternate}u)"
    return f"{int(pin[4:]) if uart.kind == 'pl011' else 32 * int(pin[1]) + int(pin[3:])}u"


def _render(template: str, board: Board, **facts: str | int) -> str:
    known = {"name": board.name, "title": board.title} | facts
    return re.sub(r"@(\w+)@", lambda match: str(known[match[1]]), (firmware_folder() / "boards" / template).read_text())


def board_files(board: Board, folder: Path) -> Path:
    """Writes memory.ld and board.h of a board into `folder` where they differ from what is there. Returns the folder."""
    for name, text in (("memory.ld", linker_script(board)), ("board.h", board_header(board))):
        write_whole(folder / name, text)
    return folder


def compiler_version(compiler: str) -> str:
    """Returns the first line of `compiler --version`. Raises MissingTool with the fix when it is not installed, or is none."""
    path, named = shutil.which(compiler), os.environ.get("CC") if compiler != CROSS_COMPILER else None
    if path is None:
        package = "gcc-arm-none-eabi libnewlib-arm-none-eabi" if compiler == CROSS_COMPILER else "gcc libc6-dev"
        missing = f"CC is {named!r}: no such program; unset it, or" if named else f"{compiler} is not installed;"
        raise MissingTool(f"{missing} run: sudo apt-get install --no-install-recommends {package}")
    try:
        return _version_line(path)
    except (subprocess.CalledProcessError, OSError, IndexError):
        found = f"CC is {named!r}, which" if named else path
        raise MissingTool(f"{found} is no C compiler: it does not answer --version; set CC to one such as gcc") from None


@cache
def _version_line(path: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def host_compiler() -> str:
    """Returns the name of the host's C compiler: that in $CC, else the first of gcc, cc and clang that is installed."""
    return host_command()[0]


def host_command() -> list[str]:
    """Returns the host's C compiler with the arguments that $CC has ("gcc -m64"). Raises MissingTool for an unreadable CC."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError as wrong:
        raise MissingTool(f"CC is {os.environ['CC']!r}: {wrong}; set it to a compiler such as gcc, or unset it") from None
    return named or [next((name for name in ("gcc", "cc", "clang") if shutil.which(name)), "gcc")]


def build_firmware(
    sources: Path, board: Board, build_folder: Path | None = None, pio: bool = False, program: str = ""
) -> Firmware:
    """Returns the firmware of the Artifact in `sources` for a board, built by the cross compiler or by PlatformIO.

    `program` "mlperf" is the one that answers the runner of MLPerf Tiny; the cross compiler builds it, PlatformIO by its own
    environment.
    Raises MissingTool, DoesNotFit (section, bytes needed, bytes there) or BuildError with the compiler's words.
    """
    build_folder = build_folder or default_build_folder()
    compiler = compiler_version(CROSS_COMPILER)
    flags = " ".join(board_flags(board))
    kind = f"{board.family} {program}"
    elf = _build_with_platformio(sources, board, build_folder) if pio else _build_plainly(sources, board, build_folder, kind)
    sizes = {section.name: section.size for section in read_elf(elf).sections}
    text = sizes.get(".isr_vector", 0) + sizes.get(".text", 0) + sizes.get(".ARM.exidx", 0)
    copied = sum(size for name, size in sizes.items() if name.startswith(".tr_"))
    return Firmware(elf, text, sizes.get(".rodata", 0), sizes.get(".data", 0), sizes.get(".bss", 0), compiler, flags, copied)


def build_host(sources: Path | None, build_folder: Path | None = None) -> Path:
    """Returns a shared library of the kernels, with the Artifact in `sources` where one is given."""
    build_folder = build_folder or default_build_folder()
    compiler, *arguments = host_command()
    flags = [*arguments, *option("flags", "host").split(), "-fPIC"]
    objects = _compile(compiler, flags, sources, firmware_folder() / "boards" / "host", "host", build_folder)
    return _link([compiler, "-shared", *flags], objects, build_folder / "host", "tinyredux.so")


def _build_plainly(sources: Path, board: Board, build_folder: Path, kind: str) -> Path:
    shape = _digest([linker_script(board), board_header(board)])
    home = board_files(board, build_folder.resolve() / "boards" / shape)
    objects = _compile(CROSS_COMPILER, board_flags(board), sources, home, kind, build_folder)
    link = [*option(board.cpu, "flags").split(), *option("flags", "link").split(), "-T", str(home / "memory.ld")]
    return _link([CROSS_COMPILER, *link], objects, build_folder / board.name, "firmware.elf", board)


def _build_with_platformio(sources: Path, board: Board, build_folder: Path) -> Path:
    files = [part for path in sorted(sources.iterdir()) if path.is_file() for part in (path.name, path.read_bytes())]
    workspace = (build_folder / board.name / f"pio-{_digest([repr(asdict(board)), *files])}").resolve()
    with locked(workspace.with_suffix(".lock")):  # SCons keeps its state there
        platformio.write_project(board, board_files(board, workspace))
        command, environment = platformio.run(workspace, sources)
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise BuildError(f"PlatformIO could not build for {board.name}:\n{(done.stdout + done.stderr)[-4000:]}")
    return workspace / "build" / platformio.OWN / "firmware.elf"


def _compile(compiler: str, flags: list[str], sources: Path | None, board: Path, kind: str, build_folder: Path) -> list[Path]:
    """Returns one object file for each source of the firmware for a `kind` of chip, and of an Artifact where one is given.

    `board` is the folder of its header. A source is compiled unless the same text, flags and compiler were met before.
    """
    objects, version = build_folder.resolve() / "objects", compiler_version(compiler)
    objects.mkdir(parents=True, exist_ok=True)
    files, includes = source_files(kind), [firmware_folder() / "include", board]
    if sources is not None:
        found = [path for pattern in ("*.c", "*.S") for path in sorted(sources.resolve().glob(pattern))]
        if not found:
            raise ValueError(f"{sources} holds no C file; write an Artifact there first: tinyredux compile NET --out DIR")
        files, includes = files + found, [*includes, sources.resolve()]

    def compile_one(path: Path) -> Path:
        parts = [part.read_bytes() for part in _included(ROOT / path, includes)]
        target = objects / f"{path.stem}-{_digest([version, *flags, *parts])}.o"
        if not target.is_file():
            stack = ["-Wa,--noexecstack"] if path.suffix == ".S" else []
            _run([compiler, *flags, *(f"-I{folder}" for folder in includes), *stack, "-c", str(path)], target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, files))


def _included(path: Path, includes: list[Path]) -> list[Path]:
    """Returns a source and every file of ours that it includes, directly or not."""
    found = [path]
    for current in found:
        names = [] if current.suffix == ".bin" else re.findall(r'(?:#include|\.incbin)\s+"(.+?)"', current.read_text())
        for name in names:
            homes = [folder / name for folder in (current.parent, *includes) if (folder / name).is_file()][:1]
            found += [home for home in homes if home not in found]
    return found


def _link(command: list[str], objects: list[Path], folder: Path, name: str, board: Board | None = None) -> Path:
    """Returns what a command links of objects, in a folder named after both. Raises DoesNotFit for a board that is too small."""
    target = folder / _digest([*command, *(path.name for path in objects)]) / name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run([*command, *map(str, objects)], target)
    except BuildError as error:
        section = re.search(r"section `(\S+)' will not fit in region `(\w+)'", str(error))
        overflow = re.search(r"region `(\w+)' overflowed by (\d+) byte", str(error))
        if board is None or section is None or overflow is None:
            raise
        flash = overflow[1] == "FLASH"
        there = board.flash_bytes if flash else board.sram_bytes
        largest = _largest_symbol(objects, ".rodata" if flash else ".bss")
        raise DoesNotFit(section[1], overflow[1], there + int(overflow[2]), there, board.name, largest) from None
    return target


def _largest_symbol(objects: Sequence[Path], section: str) -> str:
    """Returns "name N bytes" of the largest symbol in sections of that name: the one worth shrinking."""
    found = [(0, "none")]
    for elf in map(read_elf, objects):
        homes = {i for i, part in enumerate(elf.sections) if part.name.startswith(section)}
        found += [(symbol.size, symbol.name) for symbol in elf.symbols if symbol.section in homes]
    size, name = max(found)
    return f"{name} {size} bytes"


def _run(command: list[str], target: Path) -> None:
    """Runs a compiler with -o `target`, which appears whole or not at all."""
    partial, cc = partial_name(target), os.environ.get("CC", "") if command[0] == host_compiler() else ""
    done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True, errors="replace", cwd=ROOT)
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        raise BuildError(f"{Path(command[0]).name}{cc and f' (CC={cc!r})'} could not make {target.name}:\n{done.stderr.strip()}")
    if not partial.is_file():
        raise MissingTool(f"{shlex.join(command[:1])} made no {target.name}: it is no C compiler; set CC to one, such as gcc")
    partial.replace(target)


def _digest(parts: Sequence[bytes | str]) -> str:
    """Returns a short hash over the parts and their lengths."""
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:16]
