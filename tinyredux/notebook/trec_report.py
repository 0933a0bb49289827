"""What TREC brings, from the records: whole networks and single layers, against exact reference and exact fast kernels."""

from __future__ import annotations

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
    """Returns the int8 accuracy on all test images of the exact or the TREC weights of a network."""
    record = load_record(nets.WEIGHTS_FOLDER / f"{net}{'.trec' if method == 'trec' else ''}.cifar10.json")
    return round(100 * record.correct_int8 / record.images, 2)


def controls(record: Mapping[str, Any]) -> list[Row]:
    """Returns a row per network of a `trec_exact` record: test accuracies in int8, in %.

    Those of the exact weights, of the same trained on without TREC by the recipe of the TREC weights, and of the TREC weights.
    """
    share = 100 / record["images"]
    return [
        {
            "net": run["net"], "exact": per_cent(run["net"], "exact"),
            "exact_trained_on": round(share * run["correct_int8"], 2), "trec": per_cent(run["net"], "trec"),
        }
        for run in record["runs"]
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


def networks() -> list[Row]:
    """Returns a row per network and board: accuracies, how many times fewer cycles than exact reference kernels, arena bytes.

    The bytes are those of the exact network and with TREC, both with fast kernels.
    Where no TREC layer pays, the compiler takes the exact network: `trec_layers` is 0 and nothing is lost.
    """
    rows = []
    for reference, fast, trec in runs():
        layers = sum(op.vectors is not None for op in trec.per_op)
        exact_accuracy = per_cent(trec.net, "exact")
        accuracy = per_cent(trec.net, "trec") if layers else exact_accuracy
        rows.append({
            "net": trec.net, "board": trec.board, "trec_layers": layers, "exact_accuracy": exact_accuracy,
            "trec_accuracy": accuracy, "lost": round(exact_accuracy - accuracy, 2),
            "fast_exact": _times(reference.cycles, fast.cycles), "fast_trec": _times(reference.cycles, trec.cycles),
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
