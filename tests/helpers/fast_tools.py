"""Generated functions that tests call: their C twins on this computer, and their machine code on an emulated core."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compiled import cross, host, made
from generated import FLASH, Core

from tinyredux.device.build import option
from tinyredux.kernels import ASSEMBLY_HEAD, ASSEMBLY_TAIL, C_HEAD, Function, print_assembly, print_c


def host_library(folder: Path, programs: Sequence[Function]) -> ctypes.CDLL:
    """Returns the host twins of functions; undefined behaviour ends the process."""
    source = folder / "programs.c"
    source.write_text(C_HEAD + "".join(f"{program.declaration};\n{print_c(program)}" for program in programs))
    checks = ("-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC")
    return ctypes.CDLL(str(made(host(*checks), source, suffix=".so")))


def core_program(folder: Path, program: Function, core: str) -> Core:
    """Returns the emulated core with a function's machine code."""
    source = folder / "program.S"
    source.write_text(ASSEMBLY_HEAD + print_assembly(program) + ASSEMBLY_TAIL)
    link = [*option("flags", "link").split(), f"-Wl,-Ttext={FLASH:#x}", f"-Wl,-e,{program.name}"]
    return Core(made([*cross(core), *link], source, suffix=".elf"), core)


def pointer(values: np.ndarray) -> ctypes.c_void_p:
    """Returns the address of an array's data."""
    return values.ctypes.data_as(ctypes.c_void_p)
