"""Verbs about tools, simulator and boards: doctor, simulate, bench, flash, serial, run."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from tinyredux.boards import find_board
from tinyredux.cli.verbs.base import Answer, Verb, board_option, no_options, saved, table
from tinyredux.files import check_is_file, check_output
from tinyredux.simulator import error_band, say_band

_MOST_FUNCTIONS = 20
_MOST_FILE_BYTES = 1 << 28  # no program or input of a microcontroller has more
_MOST_INSTRUCTIONS = 2_000_000_000


def _doctor(options: argparse.Namespace) -> Answer:
    from tinyredux.cli.doctor import examine, to_text

    report = examine()
    return Answer(report, to_text(report), 0 if report["ok"] else 3)


def _simulate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("elf", type=Path, metavar="ELF", help="a bare-metal program for the board's core")
    board_option(parser, None)
    parser.add_argument("--input", type=Path, metavar="FILE", help="bytes that wait at the console and at semihosting's input")
    parser.add_argument("--symbols", action="store_true", help="also show the functions that cost most")
    parser.add_argument(
        "--max-instructions", type=int, metavar="N", default=_MOST_INSTRUCTIONS,
        help="stop there, with exit code 3 (default: %(default)s, a minute of work)",
    )  # fmt: skip
    parser.add_argument("--serve", action="store_true", help="serve the board on a pseudo-terminal until interrupted")


def _simulate(options: argparse.Namespace) -> Answer:
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
    result = simulate(
        options.elf,
        board,
        input_bytes=waiting,
        max_instructions=options.max_instructions,
        progress=_Ticker(options.max_instructions),
    )
    unshown = ("schema", "console", "functions", "fault", "error_band")
    facts = [(key, str(value)) for key, value in result.items() if key not in unshown]
    facts.append(("error", say_band(result["error_band"])))
    text = table(facts, ("what", "value"))
    if options.symbols:
        rows = [(f["name"], f["calls"], f["instructions"], f["cycles"]) for f in result["functions"][:_MOST_FUNCTIONS]]
        text += "\n\n" + table(rows, ("function", "calls", "instructions", "cycles"))
    return Answer(result, f"{result['console']}\n{text}", _exit_code(result["reason"], result["exit"]))


def _exit_code(reason: str, program: int) -> int:
    """Returns 3 at a limit and 130 after Ctrl+C; else whether the program says 0: its own 3 is no limit."""
    return program if reason in ("limit", "interrupted") else int(program != 0)


class _Ticker:
    """Says on standard error how far a long run is: every second on a terminal, twice a minute elsewhere."""

    def __init__(self, limit: int) -> None:
        self.limit, self.terminal = limit, sys.stderr.isatty()
        self.next = time.monotonic() + (1 if self.terminal else 30)

    def __call__(self, instructions: int) -> None:
        """Takes the instructions so far."""
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + (1 if self.terminal else 30)
        line = f"{instructions / 1e6:,.0f} of at most {self.limit / 1e6:,.0f} million instructions"
        print(f"\r\033[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True)


def _serve(elf: Path, board: Any) -> Answer:
    from tinyredux.device.served import serve_simulator

    served = serve_simulator(elf, board)
    print(f"{board.name} (simulated) on {served.port}; stop with Ctrl+C", file=sys.stderr, flush=True)
    try:
        served.serve()
    except KeyboardInterrupt:
        served.close()
    return Answer({"schema": 1, "board": board.name, "port": str(served.port)}, "")


def _bench_options(parser: argparse.ArgumentParser) -> None:
    board_option(parser)
    parser.add_argument(
        "--layer", action="append", metavar="SPEC", help="a layer such as conv3x3:32-32@16x16 (default: the book's)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="instead: all layers on all boards of the book, saved as DIR/layers.json"
    )


def _bench(options: argparse.Namespace) -> Answer:
    from tinyredux.explore.bench import bench
    from tinyredux.explore.bench_record import BOARDS, layer_table, layers_record, save

    if options.out:
        check_output(options.out)
        record = layers_record()
        columns = ("layer", "per", *(f"{board}_{kernels}" for board in BOARDS for kernels in ("reference", "fast")))
        lines = [
            tuple(f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in columns)
            for row in layer_table(record)
        ]
        answer = Answer(record | {"path": str(options.out / "layers.json")}, table(lines, columns))
        return saved(answer, lambda: save(record, options.out))
    board = find_board(options.board)
    rows = bench(board, options.layer)
    head = ("layer", "kernels", "MACs", "instructions", "cycles", "core cycles", "core cycles/MAC")
    shown = [
        tuple(row[key] for key in ("layer", "kernels", "macs", "instructions", "cycles", "cycles_core", "per_mac"))
        for row in rows
    ]
    band = error_band(board.cpu)
    text = f"{table(shown, head)}\n{say_band(band)}"
    return Answer({"schema": 1, "board": options.board, "error_band": list(band), "layers": rows}, text)


def _port_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", help="serial port (default: the one ST-Link that is plugged in)")


def _flash_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, metavar="DIR", help="what `compile --out DIR` wrote")
    board_option(parser)
    _port_option(parser)


def _flash(options: argparse.Namespace) -> Answer:
    from dataclasses import asdict

    from tinyredux.device.flash import flash

    report = flash(options.sources, find_board(options.board), options.port)
    text = f"{report.board} on {report.port} answers with model {report.model_hash} ({report.tool}, {report.seconds:.1f} s)"
    return Answer({"schema": 1} | asdict(report), text)


def _serial_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("line", nargs="*", metavar="LINE", help="one request, such as: info (default: talk until Ctrl+D)")
    _port_option(parser)


def _serial(options: argparse.Namespace) -> Answer:
    from tinyredux.device.board import ask_board, terminal

    if options.line:
        answers = ask_board(" ".join(options.line), options.port)
        return Answer({"schema": 1, "lines": list(answers)}, "\n".join(answers))
    if options.json:
        raise ValueError("a terminal has no JSON answer; give the line to send: python -m tinyredux serial --json info")
    terminal(options.port, _typed_line, print)
    return Answer({"schema": 1, "lines": []}, "")


def _typed_line() -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", type=Path, metavar="FILE", help="inputs of the model: .npy (int8) or raw bytes, such as compile's inputs.bin"
    )
    parser.add_argument("--index", type=int, default=0, metavar="N", help="which of the inputs in FILE, from 0 (default: 0)")
    _port_option(parser)


def _run(options: argparse.Namespace) -> Answer:
    from tinyredux.device.board import run_file

    result = run_file(options.input, options.port, index=options.index)
    values = [int(value) for value in result.output.ravel()]
    figures = {
        "cycles": result.cycles,
        "cycles_kind": result.cycles_kind,
        "stack_bytes": result.stack_bytes,
    }
    cycles = "" if result.cycles is None else f"\n{result.cycles:,} cycles ({result.cycles_kind})"
    return Answer({"schema": 1, "output": values} | figures, f"output {values}{cycles}")


VERBS = {
    "doctor": Verb("each tool, its version, what works without it, and the fix", "doctor", no_options, _doctor),
    "simulate": Verb(
        "run any bare-metal ELF: instructions, modelled cycles, stack, console",
        "simulate firmware.elf --board disco_f469ni --symbols",
        _simulate_options,
        _simulate,
    ),
    "bench": Verb("modelled cycles of our kernels per layer", "bench --board disco_f469ni", _bench_options, _bench),
    "flash": Verb("build an artifact and put it on a board", "flash lenet_c --board disco_f469ni", _flash_options, _flash),
    "serial": Verb("talk to a board", "serial info", _serial_options, _serial),
    "run": Verb("send one input to a board and read the answer", "run lenet_c/inputs.bin", _run_options, _run),
}
