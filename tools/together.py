"""TREC or skipping and partial execution together: modelled cycles within one SRAM limit after another; writes a record.

    python tools/together.py --net zfnet --board disco_f469ni
    python tools/together.py --net lenet --methods exact skip partial skip+partial

Exact and another method layer by layer, partial execution alone and with that method, all with fast kernels, `--images` test
images each. What does not fit into a limit has no line for it. Accuracy is not counted here: partial execution keeps every bit,
so that of `trec+partial` is that of the TREC weights, and that of `skip+partial` that of the weights tuned for skipping.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from tinyredux.device import DoesNotFit
from tinyredux.settings import Settings, measure_net

METHODS = ("exact", "trec", "partial", "trec+partial")
LIMITS = (12288, 16384, 20480, 24576, 28672, 32768, 36864, 40960)  # bytes of arena with scratch


def main() -> None:
    """Measures every method within every limit and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="zfnet")
    parser.add_argument("--board", default="disco_f469ni")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--images", type=int, default=2)
    options = parser.parse_args()
    out = Path(f"data/records/together.{options.net}.{options.board}.json")
    runs: list[dict[str, object]] = []
    for method in options.methods:
        for limit in LIMITS:
            settings = Settings(
                options.net, method, options.board, kernels="fast", sram=limit, images=options.images, data="cifar10"
            )
            try:
                found = measure_net(settings)
            except DoesNotFit:
                continue
            runs.append(
                {
                    "method": method, "limit_bytes": limit, "arena_bytes": found.planned_bytes,
                    "cycles": found.cycles, "macs_executed": found.macs_executed, "flash_bytes": found.flash_bytes["total"],
                    "bit_exact": found.bit_exact, "images": found.images,
                }
            )  # fmt: skip
            record = {
                "schema": 1, "kind": "together", "net": options.net, "board": options.board, "kernels": "fast",
                "command": shlex.join(["python", *sys.argv]), "timing_model": found.timing_model, "runs": runs,
            }  # fmt: skip
            out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
