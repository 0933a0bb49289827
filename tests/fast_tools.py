"""Programs as a library of this computer, for tests."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyredux.device.build import host_compiler, option
from tinyredux.files import ROOT
from tinyredux.kernels import C_HEAD, Function, print_c


def host_library(folder: Path, programs: Sequence[Function]) -> ctypes.CDLL:
    """Returns the host twins of Programs; undefined behaviour ends the process."""
    text = C_HEAD + "".join(f"{program.declaration};\n{print_c(program)}" for program in programs)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(text)
    flags = [*option("flags", "host").split(), "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    include = f"-I{ROOT / 'firmware' / 'include'}"
    subprocess.run([host_compiler(), *flags, "-shared", "-fPIC", include, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def pointer(values: np.ndarray) -> ctypes.c_void_p:
    """Returns the address of an array's data."""
    return values.ctypes.data_as(ctypes.c_void_p)
