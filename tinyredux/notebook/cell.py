"""A few lines of C from a notebook, built into the runtime in a network's place and run on any target.

The runtime takes a cell for a network with one operator: the same start-up, serial protocol, cycle counter and stack paint
as in every measurement, so whatever runs a network runs a cell.
"""

import contextlib
import hashlib
import multiprocessing
import re
import signal
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyredux.boards import Board, find_board
from tinyredux.device import BuildError, RawMeasurement, Target, build_firmware, build_host, default_build_folder
from tinyredux.device.link import Patience
from tinyredux.files import expect, write_whole
from tinyredux.tables import as_html, columns

OUTPUT_BYTES = 2048
PATIENCE = Patience(reply_s=10.0, run_s=30.0, attempts=1, total_s=60.0)  # of the simulator, with a cell that may never end
MIME = "application/vnd.tinyredux+json"
NARROW = "text-align:left;padding:1px 12px 1px 0"  # the style of a small table's cells
DEFINED = re.compile(r"\bvoid\s+cell\s*\(")
# What stands in a network's place: its C and its header, and what a cell sees.
RUNTIME, MODEL, HEADER = (Path(__file__).with_name(name) for name in ("cell_runtime.c", "cell_model.h", "cell.h"))
Values = int | tuple[int, ...]


class CellError(BuildError):
    """The compiler refused a cell; the message names the cell's lines."""


@dataclass(frozen=True)
class CellResult:
    """What a cell printed and what it cost. Instructions, cycles and stack are None where the target cannot know them."""

    values: dict[str, Values]
    target: str
    board: str
    instructions: int | None
    cycles: int | None
    cycles_kind: str | None
    stack_bytes: int | None

    def __getitem__(self, name: str) -> Values:
        """Returns what was printed under a name: a number, or a tuple of numbers."""
        if name not in self.values:
            raise KeyError(f"the cell printed no {name!r}; it printed {', '.join(self.values) or 'nothing'}")
        return self.values[name]

    def rows(self) -> list[tuple[str, str]]:
        """Returns the result for people, what was printed first."""
        cost = [
            ("instructions", self.instructions, ""),
            ("cycles", self.cycles, f" ({self.cycles_kind}, {self.board})"),
            ("stack bytes", self.stack_bytes, ""),
        ]
        printed = [(name, _shown(value)) for name, value in self.values.items()]
        return printed + [(name, f"{value:,}{unit}") for name, value, unit in cost if value is not None]

    def __repr__(self) -> str:
        """Returns the table as text."""
        return columns(self.rows()) or "the cell printed nothing"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        data = {"schema": 1, **asdict(self)}
        return {"text/plain": repr(self), "text/html": as_html(self.rows(), style=NARROW), MIME: data}


def _shown(value: Values) -> str:
    if isinstance(value, int):
        return str(value)
    return " ".join(map(str, value[:16])) + (f" ... ({len(value)} numbers)" if len(value) > 16 else "")


def run_cell(
    text: str, target: str = "simulator", board: str = "disco_f469ni", given: npt.NDArray[Any] | None = None
) -> CellResult:
    """Returns what the C in `text` printed on a target (host, simulator, board[:PORT]) and what it cost there.

    `text` defines `void cell(void)`, or is the body of that function. It prints with print_number(name, value),
    print_numbers(name, int32 pointer, count) and print_bytes(name, int8 pointer, count); `given` is at `cell_input`.
    Everything of tinyredux.h, requantize.h and dot.h is there. Raises CellError, MissingTool, LinkError, ValueError. Chapter 0.
    """
    expect(str, text, "the cell", "its C")
    chip = find_board(board)
    data = np.zeros(4, np.int8) if given is None else np.ascontiguousarray(given)
    if data.dtype not in (np.int8, np.int16, np.int32) or not data.size:
        raise ValueError(f"the input of a cell is {data.dtype} with {data.size} values, expected some int8, int16 or int32")
    image = data.reshape(1, 1, -1).view(np.int8)
    files, model_hash = cell_files(text, image.size)
    folder = default_build_folder() / "cells" / model_hash
    for name, content in files.items():
        write_whole(folder / name, content)
    try:
        device = _open(folder, target, chip, model_hash, image.shape)
    except BuildError as error:
        raise _explain(error, text) from None
    with contextlib.closing(device):
        run = _apart(device, image) if target == "host" else device.measure(image)
    values, complete = decode(run.output.astype(np.int8).tobytes())
    if not complete:
        raise ValueError(f"the cell printed more than fits into {OUTPUT_BYTES} bytes; print fewer numbers")
    return CellResult(values, target, chip.name, run.instructions, run.cycles, run.cycles_kind, run.stack_bytes)


def _open(folder: Path, target: str, board: Board, model_hash: str, shape: tuple[int, ...]) -> Target:
    output, (kind, _, port) = (1, 1, OUTPUT_BYTES), target.partition(":")
    if target == "host":
        from tinyredux.device.host import HostTarget

        return HostTarget(build_host(folder), shape, output)
    if target == "simulator":
        from tinyredux.device.simulated import SimulatorTarget

        simulator = SimulatorTarget(build_firmware(folder, board).elf, board, model_hash, output)
        simulator.link.patience = PATIENCE
        return simulator
    if kind != "board":
        raise ValueError(f"target is {target!r}, expected host, simulator or board[:PORT]")
    from tinyredux.device.board import BoardTarget
    from tinyredux.device.flash import flash

    return BoardTarget(flash(folder, board, port or None, model_hash).port, model_hash, output, board=board)


def _apart(device: Target, image: npt.NDArray[np.int8]) -> RawMeasurement:
    """Returns a cell's run on this computer, in a process of its own: neither a fault nor an endless loop ends the notebook."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(device.measure(image)))
    child.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE.run_s):
            raise ValueError(f"the cell has not ended after {PATIENCE.run_s:.0f} s on the host; look for a loop without an end")
        run: RawMeasurement = ours.recv()
        return run
    except EOFError:
        child.join()
        why = signal.strsignal(-(child.exitcode or 0)) or f"exit code {child.exitcode}"
        raise ValueError(f"the cell ended by a fault on the host: {why}; look for a wild pointer or index") from None
    finally:
        child.kill()
        child.join()


def decode(output: bytes) -> tuple[dict[str, Values], bool]:
    """Returns the printed values, and whether all of them fitted. A record is: name, 0, count (-1: one number), numbers."""
    values: dict[str, Values] = {}
    (head,), at = struct.unpack_from("<I", output), 4
    for _ in range(head & 0xFFFF):
        end = output.index(0, at)
        name, (count,) = output[at:end].decode("utf-8", "replace"), struct.unpack_from("<i", output, end + 1)
        numbers = struct.unpack_from(f"<{abs(count)}i", output, end + 5)
        values[name] = numbers[0] if count == -1 else numbers
        at = end + 5 + 4 * len(numbers)
    return values, head >> 16 == 0


def cell_files(text: str, input_bytes: int) -> tuple[dict[str, str], str]:
    """Returns the C files that stand in a network's place, and their hash. Compiler messages name lines of `text`."""
    (runtime, model, header), (head, body) = (path.read_text() for path in (RUNTIME, MODEL, HEADER)), split(text)
    cell = f'#include "cell.h"\n#line 1 "cell"\n{head}\n'
    cell += body if DEFINED.search(text) else f'void cell(void)\n{{\n#line 1 "cell"\n{body}\n}}\n'
    model_hash = hashlib.sha256(f"{cell}{runtime}{header}{input_bytes}".encode()).hexdigest()[:16]
    sizes = {"MODEL_HASH": f'"{model_hash}"', "INPUT_BYTES": input_bytes, "OUTPUT_BYTES": OUTPUT_BYTES}
    defined = "".join(f"#define TR_{name} {value}\n" for name, value in sizes.items())
    return {"cell.c": cell, "cell.h": header, "model.c": runtime, "model.h": defined + model}, model_hash


def split(text: str) -> tuple[str, str]:
    """Returns (what stands before the function, body). A cell that defines `cell` is all head, and its body is empty.

    The preprocessor's lines go to the head; a blank line stays in each one's place, so that line numbers hold.
    """
    if DEFINED.search(text):
        return text, ""
    lines = [(line, "") if line.lstrip().startswith("#") else ("", line) for line in text.splitlines()]
    return "\n".join(head for head, _ in lines), "\n".join(body for _, body in lines)


def _explain(error: BuildError, text: str) -> BuildError:
    """Returns the compiler's words about the cell's own lines, each with the line; other errors as they are."""
    lines = text.splitlines()
    plain = str(error).replace("\u2018", "'").replace("\u2019", "'")  # the compiler's quotes depend on the language
    found = re.findall(r"\bcell:(\d+):(?:(\d+):)? ?(?:fatal )?(error|undefined reference|multiple definition):? ?(.*)", plain)
    told = []
    for number, column, kind, words in dict.fromkeys(found):
        source = lines[int(number) - 1] if int(number) <= len(lines) else ""
        told.append(f"line {number}: {words if kind == 'error' else f'{kind} {words}'}\n    {source}")
        if column and source:
            told[-1] += "\n    " + " " * (int(column) - 1) + "^"
    return CellError("\n".join(told)) if told else error
