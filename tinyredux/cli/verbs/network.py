"""Verbs about networks: plan, nets, measure, compile."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyredux.cli.verbs.base import BOARD, LABELLED, NET, Answer, as_fields, option, saved, table, verb
from tinyredux.files import LIBRARY, check_output

if TYPE_CHECKING:
    from tinyredux.measurement import Measurement, OpRecord
    from tinyredux.settings import Settings


IN_PARTS = (
    option("--accumulator", default="int32", choices=("int32", "int16"),
           help="partial sums: int32 (default, the same bits) or int16 (half the bytes)"),
    option("--mac-limit", type=float, default=1.0, metavar="FACTOR",
           help="above 1: early layers in patches that compute shared rows again, up to so many times the MACs (default: 1.0)"),
    option("--input-outside", action="store_true", help="the network's input lies apart and is not minimised"),
)  # fmt: skip
NETWORK = (
    NET,
    option("--method", default="exact", help="exact (default), partial, trec or skip, or some of these joined by +"),
    BOARD,
    *IN_PARTS,
    option("--kernels", help="fast (default for exact) or reference (default for partial alone)"),
    option("--sram", type=int, metavar="BYTES",
           help="largest arena with scratch (default: what the board leaves; with trec, a tenth above the exact network's; "
           "in parts, the fewest bytes that cost at most 5 percent more cycles than layer by layer)"),
    option("--trec", type=Path, metavar="FILE", help="layers of method trec: JSON, {module path: {sub_length, hash_bits}}"),
    option("--skip", metavar="FILE", help="what method skip leaves out: a record FILE.json, or a front's FILE.json#N"),
    option("--data", help=f"{LABELLED}, random or FILE.npz (default: cifar10 where it is, else synthetic)"),
    option("--calibration", type=Path, metavar="FILE.npz", help="images that set the int8 ranges"),
    option("--seed", type=int, default=0, help="seed of random inputs (default: 0)"),
)  # fmt: skip


@verb(
    "the memory plan of a network, layer by layer or in parts, without building", "plan lenet --sram 20480",
    NET,
    option("--method", default="partial", choices=("exact", "partial"),
           help="exact: layer by layer; partial: in parts (default)"),
    option("--board", help="budget: what this board's SRAM leaves beside runtime and stack"),
    option("--sram", type=int, metavar="BYTES", help="budget in bytes"),
    *IN_PARTS,
    option("--data", help=f"images that set the int8 ranges: {LABELLED}, random or FILE.npz"),
    option("--out", type=Path, metavar="DIR", help="also save the plan there"),
)  # fmt: skip
def plan(options: argparse.Namespace) -> Answer:
    """Plans the memory of a network."""
    from tinyredux.boards import find_board
    from tinyredux.codegen import board_budget
    from tinyredux.explore.plans import int8_graph, plan, timeline
    from tinyredux.methods.partial import Partial

    Partial(options.sram, options.accumulator, options.mac_limit, options.input_outside)  # which checks what it is given
    if (options.method, options.accumulator) == ("exact", "int16"):
        raise ValueError("accumulator is int16, the width of partial sums; layer by layer there are none: add --method partial")
    budgets = [options.sram] if options.sram is not None else []
    budgets += [max(0, board_budget(find_board(options.board)))] if options.board else []
    kind = f"x{options.mac_limit:.2f}" if options.mac_limit > 1 else options.method
    file_name = f"{options.net.rpartition(':')[2]}.plan-{kind}.json"
    if options.out:
        check_output(options.out, file_name)
    found = plan(
        int8_graph(options.net, options.data), options.net, options.method, options.accumulator, min(budgets, default=None),
        options.mac_limit, options.input_outside,
    )  # fmt: skip
    return saved(Answer(found, timeline(found), 0 if found.get("fits", True) else 1), options.out, file_name)


@verb("the built-in networks: shapes, MACs, parameters, accuracy records", "nets")
def nets(options: argparse.Namespace) -> Answer:
    """Lists the built-in networks."""
    entries, rows = described_nets(), []
    for entry in entries:
        right = "no record" if (found := entry["accuracy"]) is None else f"{found['correct_int8']} of {found['images']}"
        rows.append((entry["name"], "x".join(map(str, entry["input_shape"])), entry["macs"], entry["parameters"], right))
    heads = ("network", "input", "MACs", "parameters", "int8 correct of CIFAR-10's test images")
    return Answer({"schema": 1, "nets": entries}, table(rows, heads))


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

    return as_fields(Settings, options)


def measured(options: argparse.Namespace) -> Measurement:
    """Returns the measurement that the options ask for: what `measure` and `%measure` save in the folder --out."""
    from tinyredux.settings import measure_net

    settings = named_run(options)
    if options.out:
        check_output(options.out)
    return measure_net(settings)


@verb(
    "compile, build and run a network on a target, and report", "measure lenet --board disco_f469ni --images 5",
    *NETWORK,
    option("--target", default="simulator", help="host, simulator (default) or board[:PORT]"),
    option("--images", type=int, default=20, help="how many test images (default: 20)"),
    option("--out", type=Path, metavar="DIR", help="also save the record there"),
)  # fmt: skip
def measure(options: argparse.Namespace) -> Answer:
    """Measures a network on a target."""
    record = measured(options)
    rows = [
        (op.name, op.kind, op.macs_dense, op.cycles, op.sram_live_bytes) + (_clusters(op) if "trec" in record.method else ())
        for op in record.per_op
    ]
    heads = ("operator", "kind", "MACs", "cycles", "live bytes", "clusters", "removed", "any data")
    text = f"{record}\n\n{table(rows, heads[: len(rows[0])])}"
    return saved(Answer(record.to_json(), text, 0 if record.bit_exact and record.fits else 1), options.out, record.file_name())


def _clusters(op: OpRecord) -> tuple[str, ...]:
    """Returns clusters, the share of sub-vectors removed, and what any data loses with so few codes: r_t and its floor."""
    if op.redundancy is None:
        return "", "", ""
    return f"{op.clusters} of {op.vectors}", f"{op.redundancy:.1%}", f"{op.redundancy_floor:.1%}"


@verb(
    "write the C, the weights, the manifest and test vectors of a network", "compile lenet --out lenet_c --images 1",
    *NETWORK,
    option("--out", type=Path, required=True, metavar="DIR", help="folder for the C files, weights, manifest and test vectors"),
    option("--images", type=int, default=4, help="how many test vectors (default: 4)"),
)  # fmt: skip
def compile(options: argparse.Namespace) -> Answer:
    """Writes the files of a network."""
    from tinyredux.settings import write_artifact

    check_output(options.out)
    artifact, files = write_artifact(named_run(options), options.out)
    sizes = [(name, (options.out / name).stat().st_size) for name in files]
    data = {"schema": 1, "net": options.net, "out": str(options.out), "model_hash": artifact.model_hash, "files": dict(sizes)}
    return Answer(data, f"model {artifact.model_hash} in {options.out}\n{table(sizes, ('file', 'bytes'))}")
