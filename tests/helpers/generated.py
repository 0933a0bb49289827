"""Generated C of whole networks as functions that tests call: on this computer, and as machine code of an emulated core."""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import unicorn
from compiled import FOLDER, INCLUDE, cross, host, kernels, objects
from elftools.elf.elffile import ELFFile
from unicorn import arm_const

from tinyredux.codegen import Artifact
from tinyredux.device import build
from tinyredux.device.host import outputs_of
from tinyredux.files import write_whole
from tinyredux.graph import Graph
from tinyredux.int8 import interpret

CPU_MODELS = {
    "cortex-m4": arm_const.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm_const.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": arm_const.UC_CPU_ARM_CORTEX_M33,
}
FLASH, RAM, STACK, RETURN = 0x08000000, 0x20000000, 0x30000000, 0x08F00000  # with more memory than boards have
NO_PORT = "#include <stdint.h>\nvoid tr_mark(int32_t i);\nvoid tr_mark(int32_t i) { (void)i; }\n"


class Core:
    """A program on an emulated Cortex-M core: its memory, and calls of its functions."""

    def __init__(self, program: Path, core: str) -> None:
        self.cpu = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB)
        self.cpu.ctl_set_cpu_model(CPU_MODELS[core])
        for base, size in ((FLASH, 16 << 20), (RAM, 64 << 20), (STACK, 1 << 20), (0xE0000000, 1 << 20)):
            self.cpu.mem_map(base, size)
        with program.open("rb") as stream:
            elf = ELFFile(stream)
            for part in elf.iter_segments():
                if part["p_type"] == "PT_LOAD" and part["p_filesz"]:
                    self.cpu.mem_write(part["p_paddr"], part.data())
            self.symbols = {symbol.name: symbol["st_value"] for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        self.cpu.reg_write(arm_const.UC_ARM_REG_FPEXC, 1 << 30)

    def write(self, address: int, data: bytes) -> None:
        """Writes bytes."""
        self.cpu.mem_write(address, data)

    def place(self, blocks: Sequence[bytes]) -> list[int]:
        """Writes blocks into RAM, one behind the other. Returns their addresses, and the address behind them."""
        at = [RAM]
        for block in blocks:
            self.write(at[-1], block)
            at.append(at[-1] + (len(block) + 31) // 16 * 16)
        return at

    def place_words(self, address: int, words: Sequence[int]) -> int:
        """Writes words of 32 bits and returns the address behind them."""
        self.write(address, struct.pack(f"<{len(words)}I", *(word & 0xFFFFFFFF for word in words)))
        return address + 4 * len(words)

    def read(self, address: int, size: int) -> bytes:
        """Returns bytes."""
        return bytes(self.cpu.mem_read(address, size))

    def call(self, name: str, *arguments: int) -> int:
        """Returns what a function returns."""
        registers = (arm_const.UC_ARM_REG_R0, arm_const.UC_ARM_REG_R1, arm_const.UC_ARM_REG_R2)
        for register, value in zip(registers, arguments, strict=False):
            self.cpu.reg_write(register, value)
        self.cpu.reg_write(arm_const.UC_ARM_REG_SP, STACK + (1 << 20))
        self.cpu.reg_write(arm_const.UC_ARM_REG_LR, RETURN | 1)
        self.cpu.emu_start(self.symbols[name] | 1, RETURN)
        return int(self.cpu.reg_read(arm_const.UC_ARM_REG_R0))


def without_marks(command: list[str]) -> list[Path]:
    """Returns the object files of the kernels and of a port that measures nothing."""
    port = write_whole(FOLDER / "no_port.c", NO_PORT)
    return [*kernels(command), *objects(command, port)]


def on_host(artifact: Artifact, images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the outputs of the C twin on this computer. A small compiler, named in SWEEP_CC, saves most of the time."""
    compiler = os.environ.get("SWEEP_CC", build.host_compiler())
    with tempfile.TemporaryDirectory() as place:
        folder = artifact.write(Path(place))
        (folder / "weights.c").write_text(f"signed char tr_weights[{len(artifact.blob) + 16}] __attribute__((aligned(16)));\n")
        made = []
        for source in [path for name in ("model.c", "weights.c", "fast_host.c") if (path := folder / name).is_file()]:
            made.append(f"{source}.o")
            command = [compiler, "-w", "-O0", "-fPIC", f"-I{INCLUDE}", f"-I{folder}", "-c", str(source), "-o", made[-1]]
            subprocess.run(command, check=True, capture_output=True)
        link = [build.host_compiler(), "-shared", "-Wl,-z,noexecstack", *made, *map(str, without_marks(host("-fPIC")))]
        subprocess.run([*link, "-o", str(folder / "model.so")], check=True, capture_output=True)
        model = ctypes.CDLL(str(folder / "model.so"))
    ctypes.memmove(model.tr_weights, artifact.blob, len(artifact.blob))
    model.tr_input.restype, model.tr_output.restype = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int8)
    found = []
    for image in images:
        ctypes.memmove(model.tr_input(), image.tobytes(), image.nbytes)
        model.tr_model_run()
        found.append(outputs_of(model, int(np.prod(shape))))
    return np.stack(found).reshape(len(images), *shape)


def on_core(artifact: Artifact, images: np.ndarray, shape: tuple[int, ...], core: str) -> np.ndarray:
    """Returns the outputs of the machine code in the emulator."""
    with tempfile.TemporaryDirectory() as place:
        folder = artifact.write(Path(place))
        sources = [str(path) for path in (folder / "model.c", folder / "fast.S", folder / "weights.S") if path.is_file()]
        keep = [f"-Wl,--undefined=tr_{name}" for name in ("model_run", "input", "output")]
        link = ["-nostartfiles", "--specs=nano.specs", "--specs=nosys.specs", f"-Wl,-Ttext={FLASH:#x}", f"-Wl,-Tbss={RAM:#x}"]
        command = [*cross(core, "-w", "-O1"), f"-I{INCLUDE}", f"-I{folder}", *link, *keep, "-Wl,-e,tr_model_run", *sources]
        made = [*map(str, without_marks(cross(core))), "-o", str(folder / "model.elf")]
        subprocess.run([*command, *made], check=True, cwd=folder, capture_output=True)
        program = Core(folder / "model.elf", core)
    found, places = [], [(program.call("tr_output"), int(np.prod(shape)))]
    if table := program.symbols.get("tr_outputs"):
        size = re.search(r"TR_OUTPUTS (\d+)", artifact.files["model.h"])
        places = list(struct.iter_unpack("<4x2I", program.read(table, 12 * int(size[1]))))  # type: ignore[index]
        assert places[0][0] == program.call("tr_output"), "tr_output is the first of the table"
    for image in images:
        program.write(program.call("tr_input"), image.tobytes())
        program.call("tr_model_run")
        found.append(np.frombuffer(b"".join(program.read(*place) for place in places), np.int8))
    return np.stack(found).reshape(len(images), *shape)


def assert_c_equals_interpreter(graph: Graph, artifact: Artifact, images: np.ndarray | int = 3) -> None:
    """Fails unless the generated C writes the interpreter's bytes for images (N, H, W, C), or for some random ones."""
    if isinstance(images, int):
        images = np.random.default_rng(0).integers(-128, 128, (images, *graph.input.shape)).astype(np.int8)
    expected = interpret.run_joined(graph, images)
    np.testing.assert_array_equal(on_host(artifact, images, expected.shape[1:]), expected)
