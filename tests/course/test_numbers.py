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
from tinyredux.course import book
from tinyredux.course.claims import all_claims
from tinyredux.explore import plans
from tinyredux.notebook import trec_report
from tinyredux.partial import plan_partial

ROOT = Path(__file__).parents[2]
RUN = re.compile(r"(\w+)\.(partial|exact)\.reference\.disco_f469ni\.simulator\.\w+")
BUDGETED = (
    "cifarnet_pruned"  # its run in parts is that of the claim, within the budget of the paper: neither default nor least plan
)
CHAPTERS = [path for path in book.notebooks() if path.parent == book.BOOK]
NOT_MADE_HERE = {"921,600": "a baud rate", "15,812": "15,876 rows less 64 codes", "4,128": "36,000 less 31,872", "1,530": "clips"}
WORDS = "zero one two three four five six seven eight".split()
CURVES = "sram_curve.cifar10", "sram_curve.keywords"


def named() -> Iterator[tuple[str, str, int, str]]:
    """Every figure of a network, bytes, cycles or right answers, that several records hold: name, network, value, where."""
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
    for point in recorded("trec_front")["points"]:
        if not point["table"]:
            yield f"cycles of fast exact on {point['board']}", point["net"], point["cycles"], "trec_front"
    for path in (ROOT / "data" / "records").glob("*.exact.fast.*.simulator.cifar10.json"):
        net, _, _, board, *_ = path.stem.split(".")
        yield f"cycles of fast exact on {board}", net, json.loads(path.read_text())["cycles"], path.stem
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


def cells(path: Path) -> list[tuple[str, str, str]]:
    """Each cell of a chapter: its kind, its source, the text that it shows."""
    found = []
    for cell in json.loads(path.read_text())["cells"]:
        shown = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell.get("outputs", [])]
        found.append((cell["cell_type"], "".join(cell["source"]), "\n".join("".join(text) for text in shown)))
    return found


def prose(name: str) -> str:
    (path,) = [path for path in CHAPTERS if path.stem.startswith(name)]
    return "\n".join(source for kind, source, _ in cells(path) if kind == "markdown")


def thousands(text: str) -> set[str]:
    return {number.replace("_", ",") for number in re.findall(r"(?<![\d.,])\d{1,3}(?:[,_]\d{3})+\b", text)}


@pytest.fixture(scope="module")
def made() -> set[str]:
    """Every integer of a thousand and more in a record, in a picture's words, or that a cell of the book writes or shows."""
    texts = [path.read_text() for path in (ROOT / "data" / "records").rglob("*.json")]
    shown = [text for path in CHAPTERS for kind, source, out in cells(path) if kind == "code" for text in (source, out)]
    known = {f"{int(number):,}" for text in [*texts, *shown] for number in re.findall(r"(?<![\d.,])\d{4,9}(?![\d.])", text)}
    return known.union(*map(thousands, shown), *(thousands(claim.differs) for claim in all_claims()))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_number_of_a_chapter_was_made(path: Path, made: set[str]) -> None:
    """Of those that are neither round nor in a picture's words, which its script writes; of the data, what data/README says."""
    text = re.sub(r"!\[[^\]]*\]", "", prose(path.stem))
    told = {number for number in thousands(text) if not number.endswith(",000")}
    assert told <= made | NOT_MADE_HERE.keys() | thousands((ROOT / "data" / "README.md").read_text())


def test_a_count_of_bits_in_words_is_the_one_in_the_code_below() -> None:
    found = 0
    for path in CHAPTERS:
        for (_, text, _), (kind, source, _) in zip(cells(path), cells(path)[1:], strict=False):
            told = re.findall(rf"\b({'|'.join(WORDS)}) bits", text)
            for bits in re.findall(r"hash_bits=(\d)", source) if told and kind == "code" else ():
                assert WORDS[int(bits)] in told, f"{path.stem}: {told} above {source}"
                found += 1
    assert found


def test_who_is_said_to_lose_nothing_loses_nothing() -> None:
    """Against the exact network after the same training; tables of right answers have that network beside them."""
    lost = {row["net"]: row["exact_same_training"] - row["trec"] for row in trec_report.controls(recorded("trec_exact"))}
    assert lost["squeezenet"] > 0.2 > lost["zfnet"]
    for path in CHAPTERS:
        for sentence in re.split(r"(?<=[.:!?])\s", prose(path.stem)):
            nets = [net for net in lost if re.search(rf"\b{net}\b", sentence)]
            assert "nothing" not in sentence or all(lost[net] < 0.1 for net in nets), sentence
    for path, head in tables():
        assert "trec" not in head or "exact same training" in head, path.stem
        assert "exact accuracy" not in head, path.stem


def tables() -> Iterator[tuple[Path, list[str]]]:
    """The headings of each table of a chapter."""
    for path in CHAPTERS:
        for cell in json.loads(path.read_text())["cells"]:
            for one in cell.get("outputs", []):
                head = re.findall(r"<th[^>]*>(.*?)</th>", "".join(one.get("data", {}).get("text/html", "")))
                if head and path.stem[0].isdigit():
                    yield path, head


def test_a_factor_stands_beside_one_against_fast_exact() -> None:
    factors = [(path.stem, head) for path, head in tables() if any(name.startswith("times") for name in head)]
    assert len(factors) >= 3 and all("fast exact" in " ".join(head) for _, head in factors), factors
    (path,) = [path for path in CHAPTERS if path.stem.startswith("12")]
    (told,) = re.findall(r"^partial .* (\d\.\d\d) times those of fast exact", "\n".join(out for _, _, out in cells(path)), re.M)
    assert f"takes {told} times the cycles of the fast exact network" in prose("12")


def test_what_chapters_say_of_others_agrees_with_them() -> None:
    """Rows of 27 bytes that begin between two words, the copy of CIFAR-10, the boards of the timing model, the claim of TREC."""
    assert sum(27 * row % 4 > 0 for row in range(4)) == 3 and "three rows of weights out of four begin between" in prose("01")
    copy = (ROOT / "data" / "README.md").read_text()
    for page in (prose("01"), (book.BOOK / "how_far_to_trust.md").read_text()):
        (sure, others, of_test) = re.findall(
            r"pixels of ([\d,]+) images[;.] [Tt]he other (\d+), of which (\d+)", " ".join(page.split())
        )[0]
        assert f"{sure} of the 60,000 images" in copy and re.search(rf"{others} \(73 train, {of_test} test", copy)
    rows = json.loads((ROOT / "tinyredux" / "simulator" / "validation.json").read_text())["rows"]
    ((count, worst),) = [
        (row["workload"].split()[0], max(row["model_over_published"])) for row in rows if row["cpu"] == "cortex-m4"
    ]
    assert f"within {100 * (worst - 1):.0f} % of {count} published board times" in prose("01")
    reports = [sentence for sentence in re.split(r"(?<=[.!?])\s", prose("08")) if "papers report" in sentence]
    assert reports and all("kind of number" in sentence for sentence in reports)
