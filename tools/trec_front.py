"""Accuracy beside cycles of every TREC table that was trained: keeps a record of the points, which chapter 10 shows.

    python tools/trec_front.py                       the weights and measurements in the working tree
    python tools/trec_front.py --revision 525ea7e    those that a commit holds

A point is the table of a network's TREC weights, its right answers on validation and test images in int8, and the cycles that
the simulator took on a board with fast kernels, beside those of the exact network, with fast and with reference kernels. All are
of one commit, so that a table measured with earlier kernels is compared with the exact network of then. Tables were chosen by
validation images; the test images are counted and choose nothing. A point without TREC layers is the exact network. A measurement
of another table than the weights', or one in which the compiler left a layer exact, makes no point.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tinyredux.notebook.trec_report import BOARDS, NETS

ROOT = Path(__file__).resolve().parents[1]


def content(path: str, revision: str | None) -> dict[str, Any] | None:
    """Returns the JSON at a path of the working tree or of a commit, None where there is none."""
    if revision is None:
        return json.loads((ROOT / path).read_text()) if (ROOT / path).is_file() else None
    done = subprocess.run(["git", "show", f"{revision}:{path}"], capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout) if done.returncode == 0 else None


def points(net: str, revision: str | None) -> list[dict[str, Any]]:
    """Returns the points of a network: exact and with TREC, on every board that both were measured on."""
    found = []
    for method in ("exact", "trec"):
        weights = content(f"tinyredux/weights/{net}{'.trec' if method == 'trec' else ''}.cifar10.json", revision)
        for board in BOARDS:
            measured = content(f"data/records/{net}.{method}.fast.{board}.simulator.cifar10.json", revision)
            reference = content(f"data/records/{net}.exact.reference.{board}.simulator.cifar10.json", revision)
            exact = content(f"data/records/{net}.exact.fast.{board}.simulator.cifar10.json", revision)
            if weights is None or measured is None or reference is None or exact is None:
                continue
            table = weights.get("table") or {}
            if len(table) != sum(op["kind"] == "TrecConv" and op["redundancy"] is not None for op in measured["per_op"]):
                continue
            found.append({
                "net": net, "board": board, "table": {path: [one["sub_length"], one["hash_bits"]] for path, one in table.items()},
                "epochs": weights["recipe"]["epochs"] if table else 0, "validation_images": weights["validation_images"],
                "validation_correct": weights["validation_correct"], "images": weights["images"],
                "correct_int8": weights["correct_int8"], "cycles": measured["cycles"],
                "exact_cycles": exact["cycles"], "reference_cycles": reference["cycles"], "weights_sha256": weights["sha256"],
                "model_hash": measured["model_hash"],
            })  # fmt: skip
    return found


def main() -> None:
    """Adds the points that are new, in the place of those of the same weights on the same board."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revision", help="commit to take weights and measurements from (default: the working tree)")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "records" / "trec_front.json")
    options = parser.parse_args()
    record = json.loads(options.out.read_text()) if options.out.is_file() else {
        "schema": 1, "kind": "trec_front", "commands": [], "points": [],
    }  # fmt: skip
    record["commands"] = sorted({*record["commands"], shlex.join(["python", *sys.argv])})
    new = [point for net in NETS for point in points(net, options.revision)]
    keys = {(point["weights_sha256"], point["board"]) for point in new}
    kept = [point for point in record["points"] if (point["weights_sha256"], point["board"]) not in keys]
    record["points"] = sorted(kept + new, key=lambda point: (NETS.index(point["net"]), point["board"], point["cycles"]))
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
