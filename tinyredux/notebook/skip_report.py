"""What the records say of skipping: fronts in per cent of exact inference, and networks tuned under their mask beside them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinyredux.nets import WEIGHTS_FOLDER
from tinyredux.notebook.show import recorded

LOSSES = (0.0, 1.0, 5.0)  # points of accuracy on validation images
Result = Mapping[str, Any]


def cycles_of(design: Result) -> int:
    """Returns the cycles of a design of a front: simulated where they are, else predicted."""
    return int((design["measured"] or design["predicted"])["cycles"])


def points_lost(result: Result, design: Result) -> float:
    """Returns how many points of accuracy a design loses on validation images; below zero: gains."""
    exact = result["validation"]["exact"] / result["validation"]["images"]
    return float(100 * (exact - design["validation_correct"] / design["validation_images"]))


def exact_cycles(result: Result, kernels: str) -> int | None:
    """Returns the cycles of exact inference with a kernel set, None where it was not measured."""
    found = [one["measured"]["cycles"] for one in result["baselines"] if one["kernels"] == kernels]
    return int(found[0]) if found else None


def summary(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Returns a row for each front: per cent of the cycles of exact inference, same kernels, that go at each of LOSSES.

    `test_lost` are the points that the design without loss on validation images loses on test images.
    """
    rows = []
    for result in results:
        row = {key: result[key] for key in ("net", "board", "kernels")}
        row |= {"designs": result["trials"]["done"], "images": result["validation"]["images"]}
        whole = exact_cycles(result, result["kernels"]) or 0
        for loss in LOSSES:
            least = min((cycles_of(one) for one in result["front"] if points_lost(result, one) <= loss + 1e-9), default=whole)
            row[f"fewer_at_{loss:g}"] = round(100 * (1 - least / whole), 1) if whole else None
        found = result["no_loss"] or {}
        error = result["cost_model"]["finalists_error_percent"].get("cycles")
        rows.append({**row, "test_lost": found.get("test_points_lost"), "error_percent": error})
    return rows


def tuned(nets: Sequence[str], boards: Sequence[str], kernels: str = "fast", data: str = "cifar10") -> list[dict[str, Any]]:
    """Returns a row for each network tuned under a mask, on each board: cycles beside exact inference, points of accuracy gained.

    Points are those of the networks in float on validation images, and in int8 on test images.
    """
    rows = []
    for net in nets:
        exact, less = (json.loads((WEIGHTS_FOLDER / f"{name}.{data}.json").read_text()) for name in (net, f"{net}.skip"))
        for board in boards:
            names = (f"{net}.{method}.{kernels}.{board}.simulator.{data}" for method in ("exact", "skip"))
            whole, cycles = (recorded(name)["cycles"] for name in names)
            more = less["validation_correct"] - exact["validation_correct"]
            rows.append({
                "net": net, "board": board, "kernels": kernels, "exact": whole, "cycles": cycles,
                "fewer": round(100 * (1 - cycles / whole), 1), "points": 100 * more / less["validation_images"],
                "test_points": 100 * (less["correct_int8"] - exact["correct_int8"]) / less["images"],
            })  # fmt: skip
    return rows
