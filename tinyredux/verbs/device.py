"""Verbs about tools, simulator and boards: doctor, simulate, bench, flash, serial, run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tinyredux.boards import find_board
from tinyredux.verbs.base import Answer, Verb, board_option, no_options, table

_MOST_FUNCTIONS = 20


def _doctor(options: argparse.Namespace) -> Answer:
    from tinyredux.doctor import examine, to_text

    report = examine()
    return Answer(report, to_text(report), 0 if report["ok"] else 3)


def _simulate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("elf", type=Path, metavar="ELF", help="a bare-metal program for the board's core")
    board_option(parser, None)
    parser.add_argument("--input", type=Path, metavar="FILE", help="bytes that wait at the console and at semihosting's input")
    parser.add_argument("--symbols", action="store_true", help="also count per function")
    parser.add_argument("--max-instructions", type=int, metavar="N", help="stop there, with exit code 3")
    parser.add_argument("--serve", action="store_true", help="serve the board on a pseudo-terminal until interrupted")


def _simulate(options: argparse.Namespace) -> Answer:
    from tinyredux.simulate import simulate

    for path in (options.elf, options.input):
        if path is not None and not path.is_file():
            raise ValueError(f"file {path} does not exist")
    if options.max_instructions is not None and options.max_instructions < 1:
        raise ValueError(f"--max-instructions is {options.max_instructions}, expected at least 1")
    board = find_board(options.board)
    if options.serve:
        return _serve(options.elf, board)
    waiting = options.input.read_bytes() if options.input else b""
    result = simulate(options.elf, board, input_bytes=waiting, max_instructions=options.max_instructions, symbols=True)
    functions = sorted(result["functions"], key=lambda entry: -int(entry["cycles"]))
    if not options.symbols:
        result["functions"] = []
    facts = {key: value for key, value in result.items() if key not in ("schema", "console", "functions")}
    text = table([(key, str(value)) for key, value in facts.items()], ("what", "value"))
    if options.symbols:
        rows = [(f["name"], f["calls"], f["instructions"], f["cycles"]) for f in functions[:_MOST_FUNCTIONS]]
        text += "\n\n" + table(rows, ("function", "calls", "instructions", "cycles"))
    return Answer(result, f"{result['console']}\n{text}", _exit_code(result["exit"]))


def _exit_code(program: int) -> int:
    return program if program in (0, 3) else 1


def _serve(elf: Path, board: Any) -> Answer:
    from tinyredux.targets.served import serve_simulator

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
    from tinyredux.bench import bench
    from tinyredux.bench_record import BOARDS, layer_table, layers_record, save

    if options.out:
        record = layers_record()
        columns = ("layer", "per", *(f"{board}_{kernels}" for board in BOARDS for kernels in ("reference", "fast")))
        lines = [
            tuple(f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in columns)
            for row in layer_table(record)
        ]
        return Answer(record | {"path": str(save(record, options.out))}, table(lines, columns))
    rows = bench(find_board(options.board), options.layer)
    head = ("layer", "kernels", "MACs", "instructions", "cycles", "core cycles", "core cycles/MAC")
    shown = [
        tuple(row[key] for key in ("layer", "kernels", "macs", "instructions", "cycles", "cycles_core", "per_mac"))
        for row in rows
    ]
    return Answer({"schema": 1, "board": options.board, "layers": rows}, table(shown, head))


def _port_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", help="serial port (default: the one ST-Link that is plugged in)")


def _flash_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, metavar="DIR", help="what `compile --out DIR` wrote")
    board_option(parser)
    _port_option(parser)


def _flash(options: argparse.Namespace) -> Answer:
    from dataclasses import asdict

    from tinyredux.targets.flash import flash

    report = flash(options.sources, find_board(options.board), options.port)
    text = f"{report.board} on {report.port} answers with model {report.model_hash} ({report.tool}, {report.seconds:.1f} s)"
    return Answer({"schema": 1} | asdict(report), text)


def _serial_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("line", nargs="*", metavar="LINE", help="one request, such as: info (default: talk until Ctrl+D)")
    _port_option(parser)


def _serial(options: argparse.Namespace) -> Answer:
    from tinyredux.targets.board import ask_board, terminal

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
    parser.add_argument("input", type=Path, metavar="FILE", help="one input of the model: .npy (int8) or raw bytes")
    _port_option(parser)


def _run(options: argparse.Namespace) -> Answer:
    from tinyredux.targets.board import run_file

    result = run_file(options.input, options.port)
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
    "flash": Verb("build an artifact and put it on a board", "flash lenet_c --board nucleo_f746zg", _flash_options, _flash),
    "serial": Verb("talk to a board", "serial info", _serial_options, _serial),
    "run": Verb("send one input to a board and read the answer", "run lenet_c/inputs.bin", _run_options, _run),
}
