"""What TREC brings, from the records: whole networks and single layers, against exact reference and exact fast kernels."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from tinyredux import nets
from tinyredux.files import ROOT
from tinyredux.measurement import Measurement, load
from tinyredux.train.pretrained import load_record

RECORDS = ROOT / "data" / "records"
NETS = ("cifarnet", "zfnet", "squeezenet", "squeezenet_bypass")
BOARDS = ("disco_f469ni", "nucleo_f746zg")
Row = dict[str, Any]


def runs() -> Iterator[tuple[Measurement, ...]]:
    """Yields (exact reference, exact fast, TREC fast) of every network on every board that all three were measured on."""
    for net, board in product(NETS, BOARDS):
        names = (f"{net}.{run}.{board}.simulator.cifar10.json" for run in ("exact.reference", "exact.fast", "trec.fast"))
        paths = [RECORDS / name for name in names]
        if all(path.is_file() for path in paths):
            yield tuple(map(load, paths))


def per_cent(net: str, method: str) -> float:
    """Returns the int8 accuracy on all test images of the exact weights of a network, or of those for a method."""
    record = load_record(nets.WEIGHTS_FOLDER / f"{net}{'' if method == 'exact' else f'.{method}'}.cifar10.json")
    return round(100 * record.correct_int8 / record.images, 2)


def controls(record: Mapping[str, Any]) -> list[Row]:
    """Returns a row per network of a `trec_exact` record: test accuracies in int8, in %.

    Those of the exact weights, of the same after the training that the TREC weights had, without TREC, and of the TREC weights.
    """
    share = 100 / record["images"]
    return [
        {
            "net": run["net"], "exact": per_cent(run["net"], "exact"),
            "exact_same_training": round(share * run["correct_int8"], 2), "trec": per_cent(run["net"], "trec"),
        }
        for run in record["runs"]
    ]  # fmt: skip


def over_tokens(record: Mapping[str, Any]) -> list[Row]:
    """Returns a row per design of a `trec_tokens` record: right test images in %, the mean of its seeds with the least and the
    most; by how many points that is below the control; cycles on the F469, and how many times fewer they are than fast exact."""
    share, found = 100 / record["entries"][0]["images"], dict[str, list[Mapping[str, Any]]]()
    for one in record["entries"]:
        found.setdefault(one["design"], []).append(one)
    right = {name: [share * one.get("correct_int8", one["correct_float"]) for one in some] for name, some in found.items()}
    mean = {name: sum(some) / len(some) for name, some in right.items()}
    cycles = {name: some[0]["cycles"] for name, some in found.items()}
    return [
        {
            "design": name, "seeds": len(some), "right": f"{mean[name]:.2f} ({min(some):.2f} to {max(some):.2f})",
            "points_below": round(mean["exact"] - mean[name], 2), "f469_million": round(cycles[name][BOARDS[0]] / 1e6, 1),
            "times_fast_exact": round(cycles["exact"][BOARDS[0]] / cycles[name][BOARDS[0]], 2),
        }
        for name, some in right.items()
    ]  # fmt: skip


def memory(record: Mapping[str, Any]) -> list[Row]:
    """Returns a row per layer of a `trec_memory` record: bytes of scratch, computed and as C wrote them, of both forms."""
    forms = ("naive", "ours")
    return [
        line | {f"{form}_computed": line["computed"][form] for form in forms}
        | {f"{form}_in_C": line[form]["high_water"] for form in forms}
        | {"times": round(line["naive"]["high_water"] / line["ours"]["high_water"], 2)}
        for line in record["layers"]
    ]  # fmt: skip


def networks(record: Mapping[str, Any]) -> list[Row]:
    """Returns a row per network and board: cycles of the exact network and with TREC, by fast kernels, arenas, and accuracies.

    `times`: how many times as fast TREC is. `exact_same_training` is of a `trec_exact` record, None where that has no run.

    Where no TREC layer pays, the compiler takes the exact network: `trec_layers` is 0 and the accuracy that of the exact weights.
    """
    same, rows = {row["net"]: row["exact_same_training"] for row in controls(record)}, []
    for _, fast, trec in runs():
        layers = sum(op.vectors is not None for op in trec.per_op)
        rows.append({
            "net": trec.net, "board": trec.board, "trec_layers": layers, "fast_exact": fast.cycles, "fast_trec": trec.cycles,
            "times": _times(fast.cycles, trec.cycles), "exact_same_training": same.get(trec.net),
            "trec": per_cent(trec.net, "trec" if layers else "exact"),
            "exact_bytes": fast.planned_bytes, "trec_bytes": trec.planned_bytes,
        })  # fmt: skip
    return rows


def layers() -> list[Row]:
    """Returns a row per TREC layer: clusters, vectors, redundancy and its floor, times fewer cycles than exact kernels."""
    return [
        {
            "net": trec.net, "board": trec.board, "layer": op.name, "clusters": op.clusters, "vectors": op.vectors,
            "removed": op.redundancy, "floor": op.redundancy_floor,
            "over_reference": _times(reference.per_op[i].cycles, op.cycles),
            "over_fast": _times(fast.per_op[i].cycles, op.cycles),
        }
        for reference, fast, trec in runs() for i, op in enumerate(trec.per_op) if op.vectors is not None
    ]  # fmt: skip


def _times(one: int | None, other: int | None) -> float | None:
    return round(one / other, 2) if one and other else None
