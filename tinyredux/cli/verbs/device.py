"""Verbs about tools, simulator and boards: doctor, simulate, bench, flash, serial, run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tinyredux.boards import find_board
from tinyredux.cli.verbs.base import BOARD, BOARDS, PORT, Answer, option, saved, table, verb
from tinyredux.files import check_is_file, check_output
from tinyredux.simulator import error_band, say_band

_MOST_FUNCTIONS = 20
_MOST_FILE_BYTES = 1 << 28  # no program or input of a microcontroller has more
_MOST_INSTRUCTIONS = 2_000_000_000


@verb("each tool, its version, what works without it, and the fix", "doctor")
def doctor(options: argparse.Namespace) -> Answer:
    """Says what is installed."""
    from tinyredux.cli.doctor import examine, to_text

    report = examine()
    return Answer(report, to_text(report), 0 if report["ok"] else 3)


@verb(
    "run any bare-metal ELF: instructions, modelled cycles, stack, console",
    "simulate firmware.elf --board disco_f469ni --symbols",
    option("elf", type=Path, metavar="ELF", help="a bare-metal program for the board's core"),
    option("--board", required=True, help=BOARDS),
    option("--input", type=Path, metavar="FILE", help="bytes that wait at the console and at semihosting's input"),
    option("--symbols", action="store_true", help="also show the functions that cost most"),
    option("--max-instructions", type=int, metavar="N", default=_MOST_INSTRUCTIONS,
           help="stop there, with exit code 3 (default: %(default)s, a minute of work)"),
    option("--serve", action="store_true", help="serve the board on a pseudo-terminal until interrupted"),
)  # fmt: skip
def simulate(options: argparse.Namespace) -> Answer:
    """Runs a program on a simulated board."""
    from tqdm import tqdm

    from tinyredux.simulator.run import simulate

    for path in (options.elf, options.input):
        if path is not None:
            check_is_file(path, "file", most=_MOST_FILE_BYTES)
    if options.max_instructions < 1:
        raise ValueError(f"--max-instructions is {options.max_instructions}, expected at least 1")
    board = find_board(options.board)
    if options.serve:
        return _serve(options.elf, board)
    waiting = options.input.read_bytes() if options.input else b""
    most = options.max_instructions
    with tqdm(desc="instructions", total=most, unit_scale=True, leave=False, disable=None) as bar:

        def shown(instructions: int) -> None:
            bar.update(instructions - bar.n)

        result = simulate(options.elf, board, input_bytes=waiting, max_instructions=most, progress=shown)
    unshown = ("schema", "console", "functions", "notes", "fault", "error_band")
    facts = [(key, str(value)) for key, value in result.items() if key not in unshown]
    facts += [("error", say_band(result["error_band"])), *(("note", note) for note in result["notes"])]
    text = f"{result['console']}\n{table(facts, ('what', 'value'))}"
    if options.symbols:
        rows = [(f["name"], f["calls"], f["instructions"], f["cycles"]) for f in result["functions"][:_MOST_FUNCTIONS]]
        text += "\n\n" + table(rows, ("function", "calls", "instructions", "cycles"))
    # 3 at a limit and 130 after Ctrl+C; else whether the program says 0: its own 3 is no limit
    stopped = result["reason"] in ("limit", "interrupted")
    return Answer(result, text, result["exit"] if stopped else int(result["exit"] != 0))


def _serve(elf: Path, board: Any) -> Answer:
    from tinyredux.device.served import serve_simulator

    served = serve_simulator(elf, board)
    print(f"{board.name} (simulated) on {served.port}; stop with Ctrl+C", file=sys.stderr, flush=True)
    try:
        served.serve()
    except KeyboardInterrupt:
        served.close()
    return Answer({"schema": 1, "board": board.name, "port": str(served.port)}, "")


@verb(
    "modelled cycles of our kernels per layer", "bench --board disco_f469ni",
    BOARD,
    option("--layer", action="append", metavar="SPEC", help="a layer such as conv3x3:32-32@16x16 (default: the book's)"),
    option("--out", type=Path, metavar="DIR", help="instead: all layers on all boards of the book, saved as DIR/layers.json"),
)  # fmt: skip
def bench(options: argparse.Namespace) -> Answer:
    """Runs single layers in the simulator."""
    from tinyredux.explore.bench import bench
    from tinyredux.explore.bench_record import BOARDS, layer_table, layers_record

    if options.out:
        check_output(options.out)
        record = layers_record()
        heads = ("layer", "per", *(f"{board}_{kernels}" for board in BOARDS for kernels in ("reference", "fast")))
        lines = [tuple(f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in heads)
                 for row in layer_table(record)]  # fmt: skip
        answer = saved(Answer(record, table(lines, heads)), options.out, "layers.json")
        return replace(answer, data=answer.data | {"path": str(options.out / "layers.json")})
    board = find_board(options.board)
    rows, band = bench(board, options.layer), error_band(board.cpu)
    head = ("layer", "kernels", "MACs", "instructions", "cycles", "core cycles", "core cycles/MAC")
    keys = ("layer", "kernels", "macs", "instructions", "cycles", "cycles_core", "per_mac")
    text = f"{table([tuple(row[key] for key in keys) for row in rows], head)}\n{say_band(band)}"
    return Answer({"schema": 1, "board": options.board, "error_band": list(band), "layers": rows}, text)


@verb(
    "build an artifact and put it on a board", "flash lenet_c --board disco_f469ni",
    option("sources", type=Path, metavar="DIR", help="what `compile --out DIR` wrote"), BOARD, PORT,
)  # fmt: skip
def flash(options: argparse.Namespace) -> Answer:
    """Puts a compiled network on a board."""
    from tinyredux.device.flash import flash

    report = flash(options.sources, find_board(options.board), options.port)
    text = f"{report.board} on {report.port} answers with model {report.model_hash} ({report.tool}, {report.seconds:.1f} s)"
    return Answer({"schema": 1} | asdict(report), text)


@verb(
    "talk to a board", "serial info",
    option("line", nargs="*", metavar="LINE", help="one request, such as: info (default: talk until Ctrl+D)"), PORT,
)  # fmt: skip
def serial(options: argparse.Namespace) -> Answer:
    """Sends a line to a board, or lets a person talk to it."""
    from tinyredux.device.board import ask_board, terminal

    if options.line:
        answers = ask_board(" ".join(options.line), options.port)
        return Answer({"schema": 1, "lines": list(answers)}, "\n".join(answers))
    if options.json:
        raise ValueError("a terminal has no JSON answer; give the line to send: python -m tinyredux serial --json info")
    terminal(options.port, lambda: line.rstrip("\n") if (line := sys.stdin.readline()) else None, print)
    return Answer({"schema": 1, "lines": []}, "")


@verb(
    "send one input to a board and read the answer", "run lenet_c/inputs.bin",
    option("input", type=Path, metavar="FILE",
           help="inputs of the model: .npy (int8) or raw bytes, such as compile's inputs.bin"),
    option("--index", type=int, default=0, metavar="N", help="which of the inputs in FILE, from 0 (default: 0)"),
    PORT,
)  # fmt: skip
def run(options: argparse.Namespace) -> Answer:
    """Runs one input on a board."""
    from tinyredux.device.board import run_file

    result = run_file(options.input, options.port, index=options.index)
    values = [int(value) for value in result.output.ravel()]
    figures = {key: getattr(result, key) for key in ("cycles", "cycles_kind", "stack_bytes")}
    cycles = "" if result.cycles is None else f"\n{result.cycles:,} cycles ({result.cycles_kind})"
    return Answer({"schema": 1, "output": values} | figures, f"output {values}{cycles}")
