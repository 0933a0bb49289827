"""The verb explore: designs of a network that trade accuracy for cycles, flash and SRAM."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tinyredux.cli.verbs.base import Answer, Verb, board_option, saved, table
from tinyredux.files import check_output, how_to_install


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="NET", help="a built-in name (see `nets`) or path/to/file.py:factory")
    parser.add_argument(
        "--methods", default="skip", help="skip is searched; partial and trec have one design each, added (default: skip)"
    )
    board_option(parser)
    parser.add_argument("--kernels", help="fast or reference (default: as `measure --method skip`)")
    parser.add_argument("--trials", type=int, default=100, help="designs to try, those of earlier runs counted (default: 100)")
    parser.add_argument(
        "--storage", metavar="URL",
        help="database of the trials, which several processes may share: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME, "
        "mysql://... (default: a file in the user's cache)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the search (default: 0)")
    parser.add_argument("--images", type=int, metavar="N", help="validation images of a trial (default: all)")
    parser.add_argument("--loss", type=float, default=5.0, metavar="POINTS", help="how far the front goes down (default: 5)")
    parser.add_argument("--finalists", type=int, default=6, metavar="N", help="designs to simulate and test (default: 6)")
    parser.add_argument("--sram", type=int, metavar="BYTES", help="largest arena with scratch (default: what the board leaves)")
    parser.add_argument("--data", help="cifar10 or synthetic (default: cifar10 where it is, else synthetic)")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder for the front's JSON (default: here)")


def _explore(options: argparse.Namespace) -> Answer:
    try:
        from tinyredux.explore.study import Exploration, explore, file_name, save
    except ModuleNotFoundError as missing:
        from tinyredux.device import MissingTool

        raise MissingTool(f"exploring needs {missing.name}; run: {how_to_install('search')}") from None
    kernels = {} if options.kernels is None else {"kernels": options.kernels}
    asked = Exploration(
        options.net, tuple(options.methods.split(",")), options.board, data=options.data, trials=options.trials,
        seed=options.seed, storage=options.storage, images=options.images, loss_points=options.loss,
        finalists=options.finalists, sram=options.sram, **kernels,
    )  # fmt: skip
    check_output(options.out)
    result = explore(asked)
    path = options.out / file_name(result)
    skips = any(one["skip"] for one in result["front"])
    again = f"; make one with: measure {options.net} --method skip --kernels {asked.kernels} --skip {path}#N" if skips else ""
    answer = Answer(result, f"{_text(result)}\n\n{path}{again}", 0 if result["front"] else 1)
    return saved(answer, lambda: save(result, path))


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


VERBS = {
    "explore": Verb(
        "search designs that trade accuracy for cycles, flash and SRAM; can be stopped and resumed; writes the Pareto front",
        "explore lenet --methods skip --trials 60 --board nucleo_u575zi_q",
        _options,
        _explore,
    )
}
