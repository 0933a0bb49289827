"""Programs and the C around them as a library of this computer, for tests."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyredux.build import ROOT, host_compiler, option
from tinyredux.fast.printers import C_HEAD, print_c
from tinyredux.fast.program import Program


def host_library(folder: Path, programs: Sequence[Program], kernels: Sequence[str] = (), sanitize: bool = True) -> ctypes.CDLL:
    """Returns the host twins of Programs and the named C kernels; undefined behaviour and overruns of C objects end the process."""
    declarations = "".join(f"{program.declaration};\n" for program in programs)
    text = C_HEAD + declarations + "".join(print_c(program) for program in programs)
    name = hashlib.sha256(repr((text, kernels)).encode()).hexdigest()[:16]
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(text)
    flags = option("flags", "host").split() + (["-fsanitize=undefined", "-fno-sanitize-recover=all"] if sanitize else [])
    files = [str(source), *(str(ROOT / "firmware" / "kernels" / kernel) for kernel in kernels)]
    include = f"-I{ROOT / 'firmware' / 'include'}"
    command = [host_compiler(), *flags, "-shared", "-fPIC", include, *files, "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(library))


def pointer(values: np.ndarray) -> ctypes.c_void_p:
    """Returns the address of an array's data."""
    return values.ctypes.data_as(ctypes.c_void_p)
