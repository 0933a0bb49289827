"""A number with a name has one value in the whole book, whichever record, claim or page gives it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinyredux import recorded
from tinyredux.course.claims import all_claims
from tinyredux.explore import plans
from tinyredux.partial import plan_partial

ROOT = Path(__file__).parents[2]
RUN = re.compile(r"(\w+)\.(partial|exact)\.reference\.disco_f469ni\.simulator\.\w+")
BUDGETED = (
    "cifarnet_pruned"  # its run in parts is that of the claim, within the budget of the paper: neither default nor least plan
)
CURVES = "sram_curve.cifar10", "sram_curve.keywords"


def named() -> Iterator[tuple[str, str, int, str]]:
    """Every figure of bytes or right answers of a network that more than one record holds: name, network, value, where."""
    for one in recorded("part_costs")["nets"]:
        for name in ("layerwise_bytes", "partial_bytes", "least_bytes"):
            yield name, one["net"], one[name], "part_costs"
    for curve in CURVES:
        for point in recorded(curve)["points"]:
            yield "least_bytes", point["net"], point["partial_bytes"], curve
            yield "layerwise_bytes", point["net"], point["layerwise_bytes"], curve
            yield f"right of {point['images']}", point["net"], point["correct_int8"], curve
    for run in recorded("int16_sums")["runs"]:
        yield "least_bytes", run["net"], run["partial_bytes_int32"], "int16_sums"
        yield f"right of {run['images']}", run["net"], run["correct_int32"], "int16_sums"
    whole = recorded("resolution")["runs"][-1]
    assert whole["size"] == 32
    yield "least_bytes", "lenet", whole["partial_bytes"], "resolution"
    yield "layerwise_bytes", "lenet", whole["layerwise_bytes"], "resolution"
    yield f"right of {whole['images']}", "lenet", whole["correct_int8"], "resolution"
    for path in (ROOT / "data" / "records").rglob("*.reference.disco_f469ni.simulator.*.json"):
        run = RUN.fullmatch(path.stem)
        if run and (run[1], run[2]) != (BUDGETED, "partial"):
            in_parts = "least_bytes" if path.parent.name == "least" else "partial_bytes"
            arena = json.loads(path.read_text())["sram_bytes"]["arena"]
            yield "layerwise_bytes" if run[2] == "exact" else in_parts, run[1], arena, path.stem


def test_a_number_with_a_name_has_one_value() -> None:
    values: dict[tuple[str, str], dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, net, value, where in named():
        values[name, net][value].append(where)
    assert not {key: dict(found) for key, found in values.items() if len(found) > 1}
    least = [sum(map(len, found.values())) for (name, _), found in values.items() if name == "least_bytes"]
    assert len(least) > 20 and sum(count > 1 for count in least) > 10  # it compares something


@pytest.mark.slow
def test_the_least_plan_of_the_records_is_todays() -> None:
    known = {one["net"]: one["least_bytes"] for one in recorded("part_costs")["nets"]}
    assert plan_partial(plans.int8_graph("lenet", "synthetic")).peak_bytes == known["lenet"]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


@pytest.mark.parametrize("claim", [claim for claim in all_claims() if claim.evidence], ids=lambda claim: claim.id)
def test_a_claims_prose_agrees_with_its_records(claim: Any) -> None:
    """Thousands in its sentences, bytes and images, stand in the records that it reads or in the commands that make them."""
    known = {f"{value:,}" for path in claim.evidence.records for value in leaves(json.loads((ROOT / path).read_text()))
             if isinstance(value, int)}  # fmt: skip
    known |= {f"{int(number):,}" for command in claim.evidence.commands for number in re.findall(r"\b\d{4,}\b", command)}
    told = set(re.findall(r"\b\d{1,3}(?:,\d{3})+\b(?! test images)", claim.differs))
    assert told <= known, told - known
