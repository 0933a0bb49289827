"""Verbs about networks: plan, nets, measure, compile, explore."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyredux.cli.verbs.base import BOARD, LABELLED, NET, Answer, given_to, option, saved, table, verb
from tinyredux.files import LIBRARY, check_output, is_network_file, require, short_name
from tinyredux.tables import as_csv, as_latex, columns

if TYPE_CHECKING:
    from tinyredux.measurement import Measurement
    from tinyredux.settings import Settings


IN_PARTS = (
    option("--accumulator", default="int32", choices=("int32", "int16"), help="of partial sums (default: int32, the same bits)"),
    option("--mac-limit", type=float, default=1.0, metavar="FACTOR",
           help="above 1: early layers in patches that compute shared rows again, up to so many times the MACs (default: 1.0)"),
    option("--input-outside", action="store_true", help="the network's input lies apart and is not minimised"),
)  # fmt: skip
ROUNDING = option(
    "--rounding", choices=("double", "single"),
    help="double: as TFLM and CMSIS-NN (default); single: as LiteRT's default interpreter, ONNX Runtime (there default)",
)  # fmt: skip


def _flash(text: str) -> int | str:
    return text if text == "board" else int(text)


FLASH = option(
    "--flash", type=_flash, metavar="BYTES",
    help="most bytes of code and constants, or board for all that it has (default: 1.5 times what reference kernels take, twice "
    "where weights are under 64 KiB)",
)  # fmt: skip
NETWORK = (
    NET,
    option("--method", help="exact (default), partial, trec or skip, or some of these joined by +"),
    BOARD,
    *IN_PARTS,
    option("--kernels", help="fast (default for exact) or reference (default for partial alone)"),
    option("--sram", type=int, metavar="BYTES",
           help="largest arena with scratch, copies of code and weights included (default: what the board leaves, copies in "
           "what is idle; with trec, an arena a tenth above the exact network's; "
           "in parts, the fewest bytes that cost at most 5 percent more cycles than layer by layer)"),
    FLASH,
    ROUNDING,
    option("--trec", type=Path, metavar="FILE", help="layers of method trec: JSON, {module path: {sub_length, hash_bits}}"),
    option("--skip", metavar="FILE", help="what method skip leaves out: a record FILE.json, or a front's FILE.json#N"),
    option("--data", help=f"{LABELLED}, random or FILE.npz, with labels of the network's first output "
           "(default: cifar10 where it is, else synthetic)"),
    option("--calibration", type=Path, metavar="FILE.npz", help="images that set the int8 ranges"),
    option("--seed", type=int, help="seed of random inputs (default: 0)"),
    option("--stream", type=int, metavar="FRAMES",
           help="the input is a window that slides by so many rows a push, and what windows share is computed once"),
)  # fmt: skip


@verb(
    "plan lenet --sram 20480", NET,
    option("--method", default="partial", choices=("exact", "partial"), help="layer by layer, or in parts (default: partial)"),
    option("--board", help="says first whether it fits this board, or what makes it fit; budget: what its SRAM leaves"),
    option("--sram", type=int, metavar="BYTES", help="budget in bytes"),
    option("--flash", type=int, metavar="BYTES", help="most bytes of code and constants on --board (default: what it has)"),
    option("--curve", action="store_true", help="also the bytes and cycles of all schedules that no other beats, on --board"),
    *IN_PARTS, ROUNDING,
    option("--data", help=f"images that set the int8 ranges: {LABELLED}, random or FILE.npz"),
    option("--out", type=Path, metavar="DIR", help="also save the plan there"),
)  # fmt: skip
def plan(options: argparse.Namespace) -> Answer:
    """Plans the memory of a network, layer by layer or in parts, and says whether it fits a board."""
    from tinyredux.boards import find_board
    from tinyredux.codegen import board_budget
    from tinyredux.explore import fit, plans
    from tinyredux.methods.partial import Partial

    given_to(Partial, options)  # which checks what it is given
    if (options.method, options.accumulator) == ("exact", "int16"):
        raise ValueError("accumulator is int16, the width of partial sums; layer by layer there are none: add --method partial")
    budgets = [options.sram] if options.sram is not None else []
    if options.curve and not options.board:
        raise ValueError("--curve prices schedules on a board and none is given; add --board, such as --board nucleo_l4r5zi")
    if options.flash is not None and not options.board:
        raise ValueError("--flash limits code and constants on a board and none is given; add --board, such as nucleo_l4r5zi")
    board = find_board(options.board) if options.board else None
    if board and options.flash is not None:
        board = replace(board, flash=replace(board.flash, size_bytes=min(options.flash, board.flash_bytes)))
    budgets += [max(0, board_budget(board))] if board else []
    kind = f"x{options.mac_limit:.2f}" if options.mac_limit > 1 else options.method
    file_name = f"{short_name(options.net)}.plan-{kind}.json"
    if options.out:
        check_output(options.out, file_name)
    options.graph, options.budget_bytes = (
        plans.int8_graph(options.net, options.data, rounding=options.rounding),
        min(budgets, default=None),
    )
    found = given_to(plans.plan, options)
    text = plans.timeline(found)
    if board:
        ways = fit.ways(options.graph, board)
        found |= {"answer": fit.sentence(options.graph, board, ways), "ways": list(map(vars, ways))}
        text = f"{found['answer']}\n\n{text}"
    if board and options.curve:
        found["curve"] = [vars(way) for way in fit.curve(options.graph, board)]
        text += f"\n\n{table(found['curve'], 'sram_bytes', 'flash_bytes', 'cycles', 'options')}"
    return saved(Answer(found, text, 0 if found.get("fits", True) else 1), options, file_name)


@verb("nets")
def nets(options: argparse.Namespace) -> Answer:
    """Lists the built-in networks: shapes, MACs, parameters, accuracy records."""
    entries = described_nets()
    rows = [{**(entry["accuracy"] or {}), **entry, "input": "x".join(map(str, entry["input_shape"]))} for entry in entries]
    return Answer({"schema": 1, "nets": entries}, table(rows, "name", "input", "macs", "parameters", "correct_int8", "images"))


def described_nets() -> list[dict[str, Any]]:
    """Returns the built-in networks: name, input shape, MACs, parameters, accuracy record of CIFAR-10 where there is one.

    The sizes are read from net_sizes.json, which a test compares with the networks, so that a list needs no torch.
    """
    entries = []
    for name, sizes in json.loads((LIBRARY / "net_sizes.json").read_text()).items():
        record = LIBRARY / "weights" / f"{name}.cifar10.json"
        entries.append({"name": name, **sizes, "accuracy": json.loads(record.read_text()) if record.is_file() else None})
    return entries


def named_run(options: argparse.Namespace) -> Settings:
    """Returns the settings that the options of `measure` and `compile` ask for."""
    from tinyredux.settings import Settings

    return given_to(Settings, options)


def measured(options: argparse.Namespace) -> Measurement:
    """Returns the measurement that the options of `measure` ask for, made when it is known that it can be saved."""
    from tinyredux.settings import measure_net

    settings = named_run(options)
    if options.out:
        check_output(options.out)
    return measure_net(settings)


@verb(
    "measure lenet --board disco_f469ni --images 5", *NETWORK,
    option("--target", help="host, simulator (default) or board[:PORT]"),
    option("--images", type=int, help="how many test images (default: 20)"),
    option("--out", type=Path, metavar="DIR", help="also save the record there"),
)  # fmt: skip
def measure(options: argparse.Namespace) -> Answer:
    """Compiles, builds and runs a network on a target, and reports."""
    record = measured(options)
    fields = ["name", "kind", "macs_dense", "cycles", "sram_live_bytes"]
    fields += ["clusters", "vectors", "redundancy", "redundancy_floor"] if "trec" in record.method else []
    text, code = f"{record}\n\n{table(map(vars, record.per_op), *fields)}", 0 if record.bit_exact and record.fits else 1
    return saved(Answer(record.to_json(), text, code, record._repr_html_()), options, record.file_name())


def _limit(text: str) -> tuple[str, float]:
    """Returns figure and percent of cycles=2. Raises ArgumentTypeError for another text."""
    from tinyredux.comparison import FIGURES

    figure, _, percent = text.partition("=")
    if figure not in FIGURES or not re.fullmatch(r"\d+(\.\d+)?", percent):
        raise argparse.ArgumentTypeError(f"{text!r}, expected a figure ({', '.join(FIGURES)}) and a number, such as cycles=2")
    return figure, float(percent)


@verb(
    "compare model.tflite --data mine.npz --images 100",
    option("a", metavar="A", help="an int8 model.tflite or .onnx; with B a record of `measure --out`, or a folder of records"),
    option("b", nargs="?", type=Path, metavar="B", help="the record or folder that is held against A, as of a later commit"),
    option("--limit", action="append", type=_limit, metavar="FIGURE=PERCENT",
           help="exit with 1 where B is worse by more: cycles, instructions, sram, planned (arena and scratch), flash, macs; "
           "accuracy in points"),
    option("--format", default="text", choices=("text", "csv", "latex"), help="of A and B (default: text)"),
    option("--data", help=f"{LABELLED}, random or FILE.npz (default: as for `measure`)"),
    option("--images", type=int, default=20, help="how many test images (default: 20)"),
    ROUNDING,
    option("--at-most", type=float, metavar="PERCENT", help="exit with 1 where more of the output's values differ"),
    option("--seed", type=int, default=0, help="seed of random inputs (default: 0)"),
)  # fmt: skip
def compare(options: argparse.Namespace) -> Answer:
    """Compares a model with the file's own runtime, LiteRT or ONNX Runtime, byte by byte and layer by layer; or two records."""
    if options.b is not None:
        return _two_records(options)
    require(not options.limit and options.format == "text", "--limit and --format are for two records; give A and B")
    from dataclasses import asdict

    from tinyredux import nets
    from tinyredux.frontends import door_of
    from tinyredux.int8 import interpret

    require(is_network_file(options.a), f"{options.a} is no .tflite or .onnx file, which LiteRT or ONNX Runtime compute")
    require(options.images >= 1, f"images is {options.images}, expected at least 1")
    data, graph = nets.file_with_data(options.a, options.data, options.seed)
    images = interpret.quantize_input(graph, data.test.first(options.images).images)
    door = door_of(options.a)
    rounding = options.rounding or door.rounding
    layers = door.compare(options.a, images, rounding)
    ends = {op.name for op in graph.ops if op.output in graph.outputs}
    last = [layer for layer in layers if layer.name in ends]
    share = 100 * sum(layer.differ for layer in last) / sum(layer.values for layer in last)
    told = f"{len(images)} images of {data.name}, {rounding} rounding: {share:.2f} % of {door.runtime}'s output values differ"
    answer = {"schema": 1, "net": options.a, "rounding": rounding, "data": data.name, "images": len(images)}
    answer |= {"runtime": door.runtime, "differ_percent": share, "layers": [asdict(layer) for layer in layers]}
    shown = table(answer["layers"], "name", "values", "differ", "largest", "differ_alone", "largest_alone", "why")
    return Answer(answer, f"{told}\n\n{shown}", int(options.at_most is not None and share > options.at_most))


def _two_records(options: argparse.Namespace) -> Answer:
    from dataclasses import asdict

    from tinyredux import comparison

    require(options.at_most is None and not options.data, "--at-most and --data are for a model; two records take --limit")
    limits = dict(options.limit or [])
    found = [comparison.compare(a, b, name) for name, a, b in comparison.pairs(Path(options.a), options.b)]
    worse = [words for one in found for words in one.worse(limits)]
    head = ("record", "figure", "a", "b", "change")
    rows = [(one.name, *vars(row).values()) for one in found for row in one.figures if (row.a, row.b) != (None, None)]
    alone = comparison.unpaired(Path(options.a), options.b)
    if options.format == "text":
        rows = [row for row in rows if len(found) == 1 or row[2] != row[3]]
        differ = [f"{one.name}: {field} {a} -> {b}" for one in found for field, (a, b) in one.settings.items()]
        shown = table([dict(zip(head, row, strict=True)) for row in rows], *head)
        kept = [f"{len(found)} records; figures that are equal are left out"] * (len(found) > 1) + alone
        slower = [vars(op) | {"operator": op.figure} for one in found for op in one.operators if op.change]
        operators = table(slower, "operator", "a", "b", "change") if slower and len(found) == 1 else ""
        text = "\n\n".join(filter(None, ["\n".join(kept), "\n".join(differ), shown, operators, "\n".join(worse)]))
    else:
        text = (as_csv if options.format == "csv" else as_latex)(rows, head)
    answer = {"schema": 1, "a": options.a, "b": str(options.b), "limits": limits, "worse": worse, "unpaired": alone}
    return Answer(answer | {"records": [asdict(one) for one in found]}, text, int(bool(worse)))


@verb(
    "compile lenet --out lenet_c --images 1", *NETWORK,
    option("--out", type=Path, required=True, metavar="DIR", help="folder for the C files, weights, manifest and test vectors"),
    option("--images", type=int, default=4, help="how many test vectors (default: 4)"),
)  # fmt: skip
def compile(options: argparse.Namespace) -> Answer:
    """Writes the C, the weights, the manifest and test vectors of a network."""
    from tinyredux.settings import write_artifact

    check_output(options.out)
    artifact, files = write_artifact(named_run(options), options.out)
    sizes = {name: (options.out / name).stat().st_size for name in files}
    data = {"schema": 1, "net": options.net, "out": str(options.out), "model_hash": artifact.model_hash, "files": sizes}
    shown = columns([(name, f"{size:,} bytes") for name, size in sizes.items()], (1,))
    return Answer(data, f"model {artifact.model_hash} in {options.out}\n{shown}")


@verb(
    "explore lenet --methods trec,partial,skip --trials 60 --board nucleo_u575zi_q", NET,
    option("--methods", type=lambda text: tuple(text.split(",")),
           help="some of trec, partial and skip; each is searched alone, then all together (default: skip)"),
    BOARD,
    option("--kernels", help="fast (default) or reference"),
    option("--trials", type=int,
           help="designs to try of each method alone, and of all together; those of earlier runs counted (default: 100)"),
    option("--storage", metavar="URL",
           help="database of the trials, which several processes may share: sqlite:///FILE, "
           "postgresql://USER:PASSWORD@HOST/NAME, mysql://... (default: a file in the user's cache)"),
    option("--seed", type=int, help="seed of the search (default: 0)"),
    option("--images", type=int, metavar="N", help="validation images of a trial (default: all)"),
    option("--loss", type=float, metavar="POINTS", dest="loss_points", help="how far the front goes down (default: 5)"),
    option("--finalists", type=int, metavar="N", help="designs to simulate and test (default: 6)"),
    option("--tune", type=int, metavar="EPOCHS", help="train the weights of finalists on for so long (default: 0)"),
    option("--cycles", type=int, metavar="N", help="most predicted cycles of a design (default: any)"),
    option("--sram", type=int, metavar="BYTES", help="largest arena with scratch (default: what the board leaves)"),
    option("--flash", type=_flash, metavar="BYTES", help="most bytes of code and constants (default: what the board has)"),
    option("--data", help=f"{LABELLED} or FILE.npz with its parts (default: cifar10 where it is, else synthetic)"),
    option("--design", metavar="FRONT.json#N", help="make this design of a front again and measure it; no other option counts"),
    option("--out", type=Path, default=Path(), metavar="DIR", help="folder for the front's JSON (default: here)"),
)  # fmt: skip
def explore(options: argparse.Namespace) -> Answer:
    """Searches designs that trade accuracy for cycles, flash and SRAM; can be stopped and resumed; writes the Pareto front."""
    from tinyredux.explore.study import Exploration, explore, file_name, remade

    if options.design is not None:
        found = remade(options.design)
        return Answer(found.to_json(), str(found), 0 if found.bit_exact else 1, found._repr_html_())
    asked = given_to(Exploration, options)
    check_output(options.out)
    result = explore(asked)
    path = options.out / (name := file_name(result))
    again = f"; make one again: python -m tinyredux explore {options.net} --design {path}#N" if result["front"] else ""
    return saved(Answer(result, f"{_designs(result)}\n\n{path}{again}", 0 if result["front"] else 1), options, name)


def _designs(result: dict[str, Any]) -> str:
    exact = [("exact, " + one["kernels"], one | {"test_correct": result["test"]["exact"]}) for one in result["baselines"]]
    rows = []
    for design, one in [*exact, *((f"{i}: {one['method']}", one) for i, one in enumerate(result["front"]))]:
        predicted, measured = one.get("predicted") or {}, one["measured"] or {}
        cycles = {"predicted_cycles": predicted.get("cycles"), "measured_cycles": measured.get("cycles")}
        rows.append(one | cycles | {"design": design, "flash_bytes": (measured or predicted).get("flash_bytes")})
    told = f"{result['trials']['done']} designs tried, {result['trials']['refused']} refused for their size"
    error = result["cost_model"]["finalists_error_percent"].get("cycles")
    known = "" if error is None else f"; cycles predicted within {error} % of the simulated ones"
    fields = "design", "validation_correct", "test_correct", "predicted_cycles", "measured_cycles", "flash_bytes"
    return f"{told}{known}\n{table(rows, *fields)}"


@verb(
    "mlperf --board nucleo_l4r5zi",
    option("--board", action="append", dest="boards", metavar="BOARD", help="may be given again (default: nucleo_l4r5zi)"),
    option("--rounding", choices=("double", "single"), help="double (default): as TFLM; single: as LiteRT's default interpreter"),
    option("--images", type=int, metavar="N", help="inputs to simulate: of the data at hand, else random ones (default: 3)"),
    option("--folder", type=Path, metavar="DIR", help="where the benchmark's files are (default: TINYREDUX_DATA/mlperf_tiny)"),
    option("--record", action="store_true", help="show the stored table, which needs no file and measures nothing"),
)  # fmt: skip
def mlperf(options: argparse.Namespace) -> Answer:
    """Measures the files of MLPerf Tiny: modelled cycles, SRAM, flash and bytes, beside published results."""
    from tqdm import tqdm

    from tinyredux.explore import mlperf

    if options.record:
        data = mlperf.recorded(tuple(options.boards or (mlperf.BOARD,)), options.rounding or "double")
    else:
        found = tqdm(given_to(mlperf.mlperf, options), "tests", leave=False, disable=None)
        data = {"schema": 1, "rows": list(found), "published": mlperf.facts()["published"]}
    equal = all(row["bit_exact"] and not row["oracle_differs"] for row in data["rows"])
    rows = mlperf.table(data["rows"])
    return Answer(data, table(rows, *rows[0]), 0 if equal else 1)
