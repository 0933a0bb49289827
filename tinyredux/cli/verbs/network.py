"""Verbs about networks: nets, measure, compile."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyredux.cli.verbs.base import LABELLED, Answer, Verb, board_option, no_options, saved, table
from tinyredux.files import LIBRARY, check_output, write_whole
from tinyredux.measurement import MOST_TIMES

if TYPE_CHECKING:
    from tinyredux.measurement import Measurement, OpRecord


def _net_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="NET", help="a built-in name (see `nets`) or path/to/file.py:factory")
    parser.add_argument("--method", default="exact", help="exact (default), partial, trec or skip, or some of these joined by +")
    board_option(parser)
    _partial_options(parser)
    parser.add_argument("--kernels", help="fast (default for exact) or reference (default for partial alone)")
    parser.add_argument(
        "--sram", type=int, metavar="BYTES",
        help="largest arena with scratch (default: what the board leaves; with trec, a tenth above the exact network's; "
        "in parts, the fewest bytes that cost at most 5 percent more cycles than layer by layer)",
    )  # fmt: skip
    parser.add_argument(
        "--trec", type=Path, metavar="FILE", help="layers of method trec: JSON, {module path: {sub_length, hash_bits}}"
    )
    parser.add_argument(
        "--skip", metavar="FILE", help="what method skip leaves out: a record FILE.json, or a front's FILE.json#N"
    )
    parser.add_argument("--data", help=f"{LABELLED}, random or FILE.npz (default: cifar10 where it is, else synthetic)")
    parser.add_argument("--calibration", type=Path, metavar="FILE.npz", help="images that set the int8 ranges")
    parser.add_argument("--seed", type=int, default=0, help="seed of random inputs (default: 0)")


def _partial_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accumulator",
        default="int32",
        choices=("int32", "int16"),
        help="partial sums: int32 (default, the same bits) or int16 (half the bytes)",
    )
    parser.add_argument(
        "--mac-limit", type=_factor, default=1.0, metavar="FACTOR",
        help="above 1: early layers in patches that compute shared rows again, up to so many times the MACs (default: 1.0)",
    )  # fmt: skip
    parser.add_argument("--input-outside", action="store_true", help="the network's input lies apart and is not minimised")


def _factor(text: str) -> float:
    """Returns a limit of MACs. Raises ArgumentTypeError for one that no plan could use."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= MOST_TIMES:
        raise argparse.ArgumentTypeError(f"the limit of MACs is {text}, expected 1.0 (no recomputation) to {MOST_TIMES}")
    return value


def _settings(options: argparse.Namespace, **changes: Any) -> Any:
    from tinyredux.settings import Settings

    names = ["net", "method", "board", "kernels", "sram", "data", "calibration", "seed", "trec", "skip"]
    names += ["accumulator", "mac_limit", "input_outside"]
    return Settings(**{name: getattr(options, name) for name in names}, **changes)


def _measure_options(parser: argparse.ArgumentParser) -> None:
    _net_options(parser)
    parser.add_argument("--target", default="simulator", help="host, simulator (default) or board[:PORT]")
    parser.add_argument("--images", type=int, default=20, help="how many test images (default: 20)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also save the record there")


def measured(options: argparse.Namespace) -> Measurement:
    """Returns the measurement that the options ask for: what `measure` and `%measure` save in the folder --out."""
    from tinyredux.settings import measure_net

    settings = _settings(options, target=options.target, images=options.images)
    if options.out:
        check_output(options.out)
    return measure_net(settings)


def _measure(options: argparse.Namespace) -> Answer:
    record = measured(options)
    rows = [
        (op.name, op.kind, op.macs_dense, op.cycles, op.sram_live_bytes) + (_clusters(op) if "trec" in record.method else ())
        for op in record.per_op
    ]
    heads = ("operator", "kind", "MACs", "cycles", "live bytes", "clusters", "removed", "any data")
    text = f"{record}\n\n{table(rows, heads[: len(rows[0])])}"
    answer = Answer(record.to_json(), text, 0 if record.bit_exact and record.fits else 1)
    return saved(answer, lambda: record.save(options.out / record.file_name())) if options.out else answer


def _clusters(op: OpRecord) -> tuple[str, ...]:
    """Returns clusters, the share of sub-vectors removed, and what any data loses with so few codes: r_t and its floor."""
    if op.redundancy is None:
        return "", "", ""
    return f"{op.clusters} of {op.vectors}", f"{op.redundancy:.1%}", f"{op.redundancy_floor:.1%}"


def _compile_options(parser: argparse.ArgumentParser) -> None:
    _net_options(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the C files, weights, manifest and test vectors"
    )
    parser.add_argument("--images", type=int, default=4, help="how many test vectors (default: 4)")


def _compile(options: argparse.Namespace) -> Answer:
    from tinyredux.settings import write_artifact

    check_output(options.out)
    artifact, files = write_artifact(_settings(options, images=options.images), options.out)
    sizes = [(name, (options.out / name).stat().st_size) for name in files]
    data = {"schema": 1, "net": options.net, "out": str(options.out), "model_hash": artifact.model_hash, "files": dict(sizes)}
    return Answer(data, f"model {artifact.model_hash} in {options.out}\n{table(sizes, ('file', 'bytes'))}")


def _nets(options: argparse.Namespace) -> Answer:
    entries = described_nets()
    rows = [
        (e["name"], "x".join(map(str, e["input_shape"])), e["macs"], e["parameters"], _accuracy(e["accuracy"])) for e in entries
    ]
    return Answer(
        {"schema": 1, "nets": entries},
        table(rows, ("network", "input", "MACs", "parameters", "int8 correct of CIFAR-10's test images")),
    )


def described_nets() -> list[dict[str, Any]]:
    """Returns the built-in networks: name, input shape, MACs, parameters, accuracy record of CIFAR-10 where there is one.

    The sizes are read from net_sizes.json, which a test compares with the networks, so that a list needs no torch.
    """
    entries = []
    for name, sizes in json.loads((LIBRARY / "net_sizes.json").read_text()).items():
        record = LIBRARY / "weights" / f"{name}.cifar10.json"
        entries.append({"name": name, **sizes, "accuracy": json.loads(record.read_text()) if record.is_file() else None})
    return entries


def _accuracy(record: dict[str, Any] | None) -> str:
    return "no record" if record is None else f"{record['correct_int8']} of {record['images']}"


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="NET", help="a built-in name (see `nets`) or path/to/file.py:factory")
    parser.add_argument(
        "--method", default="partial", choices=("exact", "partial"), help="exact: layer by layer; partial: in parts (default)"
    )
    parser.add_argument("--board", help="budget: what this board's SRAM leaves beside runtime and stack")
    parser.add_argument("--sram", type=int, metavar="BYTES", help="budget in bytes")
    _partial_options(parser)
    parser.add_argument("--data", help=f"images that set the int8 ranges: {LABELLED}, random or FILE.npz")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also save the plan there")


def _plan(options: argparse.Namespace) -> Answer:
    from tinyredux.boards import find_board
    from tinyredux.codegen import board_budget
    from tinyredux.explore.plans import int8_graph, plan, timeline

    if options.sram is not None and options.sram < 1:
        raise ValueError(f"sram is {options.sram} bytes, expected at least 1")
    budgets = [options.sram] if options.sram is not None else []
    budgets += [max(0, board_budget(find_board(options.board)))] if options.board else []
    kind = f"x{options.mac_limit:.2f}" if options.mac_limit > 1 else options.method
    file_name = f"{options.net.rpartition(':')[2]}.plan-{kind}.json"
    if options.out:
        check_output(options.out, file_name)
    graph = int8_graph(options.net, options.data)
    answer = plan(
        graph,
        options.net,
        options.method,
        options.accumulator,
        min(budgets, default=None),
        options.mac_limit,
        options.input_outside,
    )
    shown = Answer(answer, timeline(answer), 0 if answer.get("fits", True) else 1)
    return (
        saved(shown, lambda: write_whole(options.out / file_name, json.dumps(answer, indent=1) + "\n")) if options.out else shown
    )


VERBS = {
    "plan": Verb(
        "the memory plan of a network, layer by layer or in parts, without building",
        "plan lenet --sram 20480",
        _plan_options,
        _plan,
    ),
    "nets": Verb("the built-in networks: shapes, MACs, parameters, accuracy records", "nets", no_options, _nets),
    "measure": Verb(
        "compile, build and run a network on a target, and report",
        "measure lenet --board disco_f469ni --images 5",
        _measure_options,
        _measure,
    ),
    "compile": Verb(
        "write the C, the weights, the manifest and test vectors of a network",
        "compile lenet --out lenet_c --images 1",
        _compile_options,
        _compile,
    ),
}
