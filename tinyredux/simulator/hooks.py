"""hooks.c: its compilation at first use, and the structures that it declares and shares with the machine."""

import ctypes
import hashlib
import mmap
import os
import re
import shutil
import subprocess
from ctypes import CFUNCTYPE, c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from tinyredux.files import cache_folder

SOURCE = Path(__file__).with_name("hooks.c")
STOP_NONE, STOP_EVENT, STOP_LIMIT, STOP_ADDRESS, STOP_LOOP, STOP_FLOAT, STOP_ALIGNMENT = range(7)
ALIGNED, FLOAT, NO_LOAD = 1, 2, 4  # Load.checks
END_NONE, END_DIRECT, END_CALL, END_INDIRECT, END_RETURN, END_CONDITIONAL = range(6)
MAX_BLOCKS = MAX_LOADS = 1 << 17
NEVER, ANY_STACK = (1 << 64) - 1, 0xFFFFFFFF

PRICE = CFUNCTYPE(None, c_uint32, c_uint32)


class MissingTool(RuntimeError):  # noqa: N818
    """A program or folder that the work needs is not there; the message says how to get it."""


def zeroed(kind: Any, count: int) -> Any:
    """Returns a ctypes array of zeros that takes memory only where it is used."""
    return (kind * count).from_buffer(mmap.mmap(-1, max(1, count * ctypes.sizeof(kind))))


def _structures(text: str) -> dict[str, Any]:
    """Returns the structures that a C file declares, as ctypes classes; pointers to other things are `void *`."""
    known: dict[str, Any] = {
        "uint8_t": c_uint8, "uint16_t": c_uint16, "uint32_t": c_uint32, "uint64_t": c_uint64, "int32_t": c_int32,
    }  # fmt: skip
    for name, body in re.findall(r"^struct (\w+) \{.*?\n(.*?)^\};", text, re.MULTILINE | re.DOTALL):
        body = re.sub(r"\w+ \(\*(\w+)\)\(.*?\)", r"void *\1", body)  # pointers to functions
        fields = []
        for kind, places in re.findall(r"^    (?:volatile )?(?:struct )?(\w+) ([\w*, \[\]]+);", body, re.MULTILINE):
            for star, place, count in re.findall(r"(\*?)(\w+)(?:\[(\d+)\])?", places):
                pointer = ctypes.POINTER(known[kind]) if kind in known else c_void_p
                fields.append((place, pointer if star else known[kind] * int(count) if count else known[kind]))
        known[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return known


STRUCTURES = _structures(SOURCE.read_text())
Block, Load, Region, Cache, State = (STRUCTURES[name] for name in ("block", "load", "region", "cache", "state"))


def compiled_library(source: Path) -> Path:
    """Returns the shared library of a C file, compiled once per content. Raises MissingTool without a working C compiler."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    library = cache_folder() / f"{source.stem}-{digest}.so"
    if library.is_file():
        return library
    names = (os.environ.get("CC", "").partition(" ")[0] or "cc", "gcc", "clang")
    compiler = next(filter(None, map(shutil.which, names)), None)
    library.parent.mkdir(parents=True, exist_ok=True)
    partial = library.with_name(f"{library.name}.{os.getpid()}")
    command = [compiler or "", "-O2", "-shared", "-fPIC", "-o", str(partial), str(source)]
    if compiler is None or subprocess.run(command, capture_output=True).returncode != 0 or not partial.is_file():
        raise MissingTool(
            f"the simulator counts in machine code, and {compiler or 'no C compiler'} "
            f"{'could not compile' if compiler else 'is there to compile'} {source.name}; "
            "run: sudo apt-get install --no-install-recommends gcc libc6-dev"
        )
    partial.replace(library)
    return library


def compiled_hooks() -> ctypes.CDLL:
    """Returns the hooks of hooks.c. Raises MissingTool without a working C compiler."""
    hooks = ctypes.CDLL(str(compiled_library(SOURCE)))
    hooks.find_registers.restype = ctypes.POINTER(c_uint32)
    hooks.find_registers.argtypes = [c_void_p, c_uint32, c_uint32]
    return hooks


def new_cache(lines: int, ways: int, line_bytes: int, miss_cycles: int, prefetch: bool, covered_bytes: int) -> Any:
    """Returns an empty cache of `lines` lines (0: none) in sets of `ways` over a memory of `covered_bytes`."""
    ways, sets = max(1, ways), max(1, max(1, lines) // max(1, ways))
    cache = Cache(line_bytes.bit_length() - 1, miss_cycles, prefetch, 1 << 31, sets, ways, lines > 0)
    cache.where = zeroed(c_uint32, covered_bytes // line_bytes + 2)
    cache.held, cache.used = (c_uint32 * (ways * sets))(), (c_uint64 * (ways * sets))()
    return cache
