"""The verb explore: designs of a network that trade accuracy for cycles, flash and SRAM."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tinyredux.cli.verbs.base import BOARD, NET, Answer, as_fields, option, saved, table, verb
from tinyredux.files import check_output, how_to_install


@verb(
    "search designs that trade accuracy for cycles, flash and SRAM; can be stopped and resumed; writes the Pareto front",
    "explore lenet --methods skip --trials 60 --board nucleo_u575zi_q",
    NET,
    option("--methods", default="skip", type=lambda text: tuple(text.split(",")),
           help="skip is searched; partial and trec have one design each, added (default: skip)"),
    BOARD,
    option("--kernels", default="fast", help="fast or reference (default: as `measure --method skip`)"),
    option("--trials", type=int, default=100, help="designs to try, those of earlier runs counted (default: 100)"),
    option("--storage", metavar="URL",
           help="database of the trials, which several processes may share: sqlite:///FILE, "
           "postgresql://USER:PASSWORD@HOST/NAME, mysql://... (default: a file in the user's cache)"),
    option("--seed", type=int, default=0, help="seed of the search (default: 0)"),
    option("--images", type=int, metavar="N", help="validation images of a trial (default: all)"),
    option("--loss", type=float, default=5.0, metavar="POINTS", dest="loss_points",
           help="how far the front goes down (default: 5)"),
    option("--finalists", type=int, default=6, metavar="N", help="designs to simulate and test (default: 6)"),
    option("--sram", type=int, metavar="BYTES", help="largest arena with scratch (default: what the board leaves)"),
    option("--data", help="cifar10 or synthetic (default: cifar10 where it is, else synthetic)"),
    option("--out", type=Path, default=Path(), metavar="DIR", help="folder for the front's JSON (default: here)"),
)  # fmt: skip
def explore(options: argparse.Namespace) -> Answer:
    """Searches the designs of a network."""
    try:
        from tinyredux.explore.study import Exploration, explore, file_name
    except ModuleNotFoundError as missing:
        from tinyredux.device import MissingTool

        raise MissingTool(f"exploring needs {missing.name}; run: {how_to_install('search')}") from None
    asked = as_fields(Exploration, options)
    check_output(options.out)
    result = explore(asked)
    path = options.out / (name := file_name(result))
    skips = any(one["skip"] for one in result["front"])
    again = f"; make one with: measure {options.net} --method skip --kernels {asked.kernels} --skip {path}#N" if skips else ""
    return saved(Answer(result, f"{_text(result)}\n\n{path}{again}", 0 if result["front"] else 1), options.out, name)


def _text(result: dict[str, Any]) -> str:
    rows = [(f"exact, {one['kernels']}", None, result["test"]["exact"], None, *_sizes(one)) for one in result["baselines"]]
    for i, one in enumerate(result["front"]):
        predicted = (one["predicted"] or {}).get("cycles")
        rows.append((f"{i}: {one['method']}", one["validation_correct"], one["test_correct"], predicted, *_sizes(one)))
    heads = ("design", "right, validation", "right, test", "predicted cycles", "measured cycles", "flash bytes")
    told = f"{result['trials']['done']} designs tried, {result['trials']['refused']} refused for their size"
    error = result["cost_model"]["finalists_error_percent"].get("cycles")
    known = "" if error is None else f"; cycles predicted within {error} % of the simulated ones"
    return f"{told}{known}\n{table(rows, heads)}"


def _sizes(one: dict[str, Any]) -> tuple[int | None, int | None]:
    measured = one["measured"] or {}
    return measured.get("cycles"), measured.get("flash_bytes", (one.get("predicted") or {}).get("flash_bytes"))
