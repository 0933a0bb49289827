"""Programs as a library of this computer, for tests."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compiled import host, made

from tinyredux.kernels import C_HEAD, Function, print_c


def host_library(folder: Path, programs: Sequence[Function]) -> ctypes.CDLL:
    """Returns the host twins of Programs; undefined behaviour ends the process."""
    source = folder / "programs.c"
    source.write_text(C_HEAD + "".join(f"{program.declaration};\n{print_c(program)}" for program in programs))
    checks = ("-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC")
    return ctypes.CDLL(str(made(host(*checks), source, suffix=".so")))


def pointer(values: np.ndarray) -> ctypes.c_void_p:
    """Returns the address of an array's data."""
    return values.ctypes.data_as(ctypes.c_void_p)
