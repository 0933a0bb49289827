"""Does it pay to aim at the peak? Prunes networks to one SRAM budget twice, with equal training; writes a record.

    python tools/pruning_aim.py

"peak" takes out the least saliency per byte freed where the plan peaks, "anywhere" the least saliency until the plan fits. What
lies in the user's cache already is not made again. Right answers are counted once, at the end, in int8.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinyredux import nets
from tinyredux.graph import total_macs
from tinyredux.partial import plan_partial
from tinyredux.train import pretrained
from tinyredux.train.channels import channels_of
from tinyredux.train.prune import AIMS

RECORD = Path("data/records/pruning_aim.json")
NET, DATA, BUDGET, EPOCHS, STEPS, RATE, SEEDS = "lenet", "cifar10", 6144, 3, 6, 0.03, (0, 1)


def run(aim: str, seed: int) -> dict[str, Any]:
    """Returns what one pruning left, made now or before."""
    name = f"{NET}_{BUDGET}_{aim}_{seed}"
    weights = nets.weights_file(name, DATA)
    if weights is None:
        record = pretrained.prune_net(NET, BUDGET, DATA, EPOCHS, seed, name, aim, STEPS, RATE)
    else:
        record = pretrained.load_record(weights.with_suffix(".json"))
    graph = channels_of(nets.load_net(name, DATA)).graph
    return {
        "net": NET, "data": DATA, "aim": aim, "seed": seed, "budget_bytes": BUDGET,
        "partial_bytes": plan_partial(graph).peak_bytes, "macs": total_macs(graph), "parameters": record.parameters,
        "validation_images": record.validation_images, "validation_correct": record.validation_correct,
        "images": record.images, "correct_int8": record.correct_int8, "command": record.command,
    }  # fmt: skip


def main() -> None:
    """Writes the record after each run."""
    runs: list[dict[str, Any]] = []
    for seed in SEEDS:
        for aim in AIMS:
            runs.append(run(aim, seed))
            whole = {"schema": 1, "kind": "pruning_aim", "command": "python tools/pruning_aim.py", "runs": runs}
            RECORD.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
