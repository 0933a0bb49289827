"""Verbs about tools, simulator and boards: doctor, boards, simulate, bench, flash, serial, run."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

from tinyredux.boards import Board, board_names, find_board
from tinyredux.cli.verbs.base import BOARD, BOARDS, PORT, Answer, option, saved, table, verb
from tinyredux.files import check_is_file, check_output, is_network_file
from tinyredux.simulator import error_band, say_band
from tinyredux.tables import columns

_MOST_FUNCTIONS = 20
_MOST_FILE_BYTES = 1 << 28  # no program or input of a microcontroller has more


@verb("doctor")
def doctor(options: argparse.Namespace) -> Answer:
    """Says of each tool its version, what works without it, and the fix."""
    from tinyredux.cli.doctor import examine, to_text

    report = examine()
    return Answer(report, to_text(report), 0 if report["ok"] else 3)


@verb("boards")
def boards(options: argparse.Namespace) -> Answer:
    """Lists the boards that are built in and those in the user's folder: memories, and what writes a program to them."""
    found = [find_board(name) for name in board_names(every=True)]
    entries = [asdict(one) | {"flash_bytes": one.flash_bytes, "sram_bytes": one.sram_bytes} for one in found]
    return Answer({"schema": 1, "boards": entries}, table(entries, "name", "flash_bytes", "sram_bytes", "upload", "title"))


@verb(
    "simulate firmware.elf --board disco_f469ni --symbols",
    option("elf", type=Path, metavar="ELF", help="a bare-metal program for the board's core"),
    option("--board", required=True, help=BOARDS),
    option("--input", type=Path, metavar="FILE", help="bytes that wait at the console and at semihosting's input"),
    option("--symbols", action="store_true", help="also show the functions that cost most"),
    option("--max-instructions", type=int, metavar="N", default=2_000_000_000,
           help="stop there, with exit code 3 (default: %(default)s, a minute of work)"),
    option("--serve", action="store_true", help="serve the board on a pseudo-terminal until interrupted"),
)  # fmt: skip
def simulate(options: argparse.Namespace) -> Answer:
    """Runs any bare-metal ELF on a simulated board: instructions, modelled cycles, stack, console."""
    from tqdm import tqdm

    from tinyredux.simulator.run import simulate

    for path in filter(None, (options.elf, options.input)):
        check_is_file(path, "file", most=_MOST_FILE_BYTES)
    most = options.max_instructions
    if most < 1:
        raise ValueError(f"--max-instructions is {most}, expected at least 1")
    board = find_board(options.board)
    if options.serve:
        return _serve(options.elf, board)
    waiting = options.input.read_bytes() if options.input else b""
    with tqdm(desc="instructions", total=most, unit_scale=True, leave=False, disable=None) as bar:

        def shown(instructions: int) -> None:
            bar.update(instructions - bar.n)

        result = simulate(options.elf, board, input_bytes=waiting, max_instructions=most, progress=shown)
    unshown = ("schema", "console", "functions", "fault", "error_band")
    facts = [(key, str(value)) for key, value in result.items() if key not in unshown]
    text = f"{result['console']}\n{columns([*facts, ('error', say_band(result['error_band']))])}"
    if options.symbols:
        text += "\n\n" + table(result["functions"][:_MOST_FUNCTIONS], "name", "calls", "instructions", "cycles")
    # 3 at a limit and 130 after Ctrl+C; else whether the program says 0: its own 3 is no limit
    stopped = result["reason"] in ("limit", "interrupted")
    return Answer(result, text, result["exit"] if stopped else int(result["exit"] != 0))


def _serve(elf: Path, board: Board) -> Answer:
    from tinyredux.device.served import serve_simulator

    served = serve_simulator(elf, board)
    print(f"{board.name} (simulated) on {served.port}; stop with Ctrl+C", file=sys.stderr, flush=True)
    try:
        served.serve()
    except KeyboardInterrupt:
        served.close()
    return Answer({"schema": 1, "board": board.name, "port": str(served.port)}, "")


@verb(
    "bench --board disco_f469ni", BOARD,
    option("--layer", action="append", metavar="SPEC", help="a layer such as conv3x3:32-32@16x16 (default: the book's)"),
    option("--out", type=Path, metavar="DIR", help="instead: all layers on all boards of the book, saved as DIR/layers.json"),
)  # fmt: skip
def bench(options: argparse.Namespace) -> Answer:
    """Runs single layers in the simulator: modelled cycles of our kernels."""
    from tinyredux.explore.bench import bench
    from tinyredux.explore.bench_record import BOARDS, layer_table, layers_record

    if options.out:
        check_output(options.out)
        record = layers_record()
        fields = [f"{board}_{kernels}" for board in BOARDS for kernels in ("reference", "fast")]
        answer = saved(Answer(record, table(layer_table(record), "layer", "per", *fields)), options, "layers.json")
        return replace(answer, data=answer.data | {"path": str(options.out / "layers.json")})
    board = find_board(options.board)
    rows, band = bench(board, options.layer), error_band(board.cpu)
    text = table(rows, "layer", "kernels", "macs", "instructions", "cycles", "cycles_core", "per_mac", "bound_per_mac")
    data = {"schema": 1, "board": options.board, "error_band": list(band), "layers": rows}
    return Answer(data, f"{text}\n{say_band(band)}")


@verb(
    "flash lenet_c --board disco_f469ni",
    option("sources", metavar="NET", help="what `compile --out DIR` wrote, or a network as for `measure`"),
    BOARD, PORT,
    option("--data", help="cifar10, synthetic, random or FILE.npz"),
)  # fmt: skip
def flash(options: argparse.Namespace) -> Answer:
    """Puts a network on a board: one that is compiled now, or the folder that `compile --out` wrote, as it is."""
    from tinyredux.device import default_build_folder
    from tinyredux.device.flash import flash
    from tinyredux.settings import Settings, compile_net

    folder, model_hash = Path(options.sources), None
    bare = folder.name == options.sources and not folder.exists()
    if bare or ":" in options.sources or is_network_file(options.sources):  # a network's name; what has folders in it is a folder
        artifact = compile_net(Settings(options.sources, board=options.board, data=options.data)).artifact
        model_hash = artifact.model_hash
        folder = artifact.write(default_build_folder() / "models" / model_hash)
    report = flash(folder, find_board(options.board), options.port, model_hash)
    text = f"{report.board} on {report.port} answers with model {report.model_hash} ({report.tool}, {report.seconds:.1f} s)"
    return Answer({"schema": 1} | asdict(report), text)


@verb(
    "serial info",
    option("line", nargs="*", metavar="LINE", help="one request, such as: info (default: talk until Ctrl+D; a notebook: info)"),
    PORT,
)  # fmt: skip
def serial(options: argparse.Namespace) -> Answer:
    """Sends a line to a board and shows the answer, or lets a person talk to it."""
    from tinyredux.device.board import ask_board, terminal

    if options.line:
        answers = ask_board(" ".join(options.line), options.port)
        return Answer({"schema": 1, "lines": list(answers)}, "\n".join(answers))
    if options.json:
        raise ValueError("a terminal has no JSON answer; give the line to send: python -m tinyredux serial --json info")
    terminal(options.port, lambda: line.rstrip("\n") if (line := sys.stdin.readline()) else None, print)
    return Answer({"schema": 1, "lines": []}, "")


@verb(
    "run lenet_c/inputs.bin",
    option("input", type=Path, metavar="FILE", help="inputs of the model: .npy (int8) or raw bytes, as compile's inputs.bin"),
    option("--index", type=int, default=0, metavar="N", help="which of the inputs in FILE, from 0 (default: 0)"),
    PORT,
)  # fmt: skip
def run(options: argparse.Namespace) -> Answer:
    """Sends one input to a board and reads the answer."""
    from tinyredux.device.board import run_file

    result, info = run_file(options.input, options.port, index=options.index)
    values, named, at = result.output.ravel().tolist(), dict[str, list[int]](), 0
    for name, size in info.outputs:
        named[name], at = values[at : at + size], at + size
    figures = {key: getattr(result, key) for key in ("cycles", "cycles_kind", "stack_bytes")}
    cycles = "" if result.cycles is None else f"\n{result.cycles:,} cycles ({result.cycles_kind})"
    several = {"outputs": named} if named else {}
    text = "\n".join(f"output {name} {part}" for name, part in named.items()) or f"output {values}"
    return Answer({"schema": 1, "output": values} | several | figures, f"{text}{cycles}")
