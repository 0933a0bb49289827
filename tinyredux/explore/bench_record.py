"""The table of layers: both kernel sets on the book's boards, from a record, beside published figures of CMSIS-NN."""

from typing import Any

from tinyredux.boards import find_board
from tinyredux.explore.bench import bench

BOARDS = {"F469": "disco_f469ni", "F746": "nucleo_f746zg", "U575": "nucleo_u575zi_q"}

# CMSIS-NN's main branch of July 2026, DSP path, gcc 12.2, in the same kind of model without flash stalls: cycles per MAC, for
# pools and add per output, on a Cortex-M4 and a Cortex-M7. The M4's depthwise figure is that of -O2, its better one (10.7 at
# -O3). They are figures of prototypes, not of a board, and nobody measures them here.
CMSIS_NN = {
    "conv3x3:32-32@16x16": (2.32, 1.34), "conv5x5:3-32@32x32": (3.67, 2.37), "conv5x5:32-32@16x16": (2.18, 1.26),
    "conv5x5:32-64@8x8": (2.09, 1.21), "conv1x1:64-64@16x16": (2.48, 1.32), "depthwise3x3:64@16x16": (9.4, 6.5),
    "dense:1024-10": (2.42, 1.36), "max3x3s2:32@32x32": (77.0, 57.0), "average3x3s2:32@16x16": (98.0, 55.0),
    "add:32@16x16": (91.0, 54.0),
}  # fmt: skip
OF_CORE = {"F469": 0, "F746": 1}


def layers_record() -> dict[str, Any]:
    """Returns the record of all layers with both kernel sets on every board of BOARDS; simulates them all, some minutes."""
    return {"schema": 1, "kind": "layers", "boards": {name: bench(find_board(name)) for name in BOARDS.values()}}


def layer_table(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row per layer of a record: core cycles per MAC, for pools and add per output, without flash stalls.

    Per board `reference`, `fast` and what fast takes in its inner loop alone (`bound`); for those with a published figure also
    that (`CMSIS`), and how many times faster fast is.
    """
    found: dict[str, dict[str, Any]] = {}
    for short, board in BOARDS.items():
        for row in record["boards"][board]:
            line = found.setdefault(row["layer"], {"layer": row["layer"], "per": "MAC" if row["macs"] else "output"})
            cycles = row["cycles_core"] / (row["macs"] or row["outputs"])
            line[f"{short}_{row['kernels']}"] = cycles
            if row["kernels"] == "fast":
                line[f"{short}_form"] = row["form"]
                line[f"{short}_bound"] = row["bound_per_mac"]
                line[f"{short}_scratch"] = row["scratch_bytes"]
                if short in OF_CORE:
                    line[f"{short}_CMSIS"] = CMSIS_NN[row["layer"]][OF_CORE[short]]
                    line[f"{short}_times"] = line[f"{short}_CMSIS"] / cycles
    return list(found.values())
