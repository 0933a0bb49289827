"""Writes the parts of pages that are read from the library and the records: `python book/pages.py`.

A page keeps its prose; what stands between `<!-- name: python book/pages.py writes this -->` and `<!-- end of name -->` is made
here. tests/course/test_front.py compares the pages with it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tinyredux import board_names, find_board, nets, simulator
from tinyredux.course.claims import Claim, all_claims
from tinyredux.nets import WEIGHTS_FOLDER, pruning_of

BOOK = Path(__file__).resolve().parent
DATA, LIBRARY = BOOK.parent / "data", BOOK.parent / "tinyredux"
PATHS = {  # chapters and labs of each way through the book
    "a day": ("00 01 02 03 04", "0 1 2"),
    "less memory": ("00 01 02 03 04 06 07", "0 2 3"),
    "less work": ("00 01 02 04 08 09 10 11", "0 1 4 5"),
    "the course": ("00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16", "0 1 2 3 4 5 6 7 8"),
    "research": ("00 04 12 13 14 b", ""),
}
BLOCK = re.compile(r"(<!-- (\w+): python book/pages\.py writes this -->\n)(.*?)(<!-- end of \2 -->\n)", re.S)
SETS = ("cifar10", "keywords", "synthetic")  # on which there are weights


def filled(page: str) -> str:
    """Returns a page's text with every part that is made here made again."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}{found[4]}", page)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a table in Markdown."""
    head = [*head]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@cache
def _chapter_texts() -> dict[Path, str]:
    """Returns what each chapter and appendix says, in words, code and text outputs."""
    texts = {}
    for path in sorted(BOOK.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        said = [cell["source"] for cell in cells] + [output.get("text", "") for output in outputs]
        said += [output.get("data", {}).get("text/plain", "") for output in outputs]
        texts[path] = "\n".join("".join(part) for part in said)
    return texts


def chapters_with(pattern: str) -> str:
    """Returns links to the chapters and appendices in which a pattern occurs, a dash where there is none."""
    found = [path for path, text in _chapter_texts().items() if re.search(pattern, text)]
    return _linked(found) or "-"


def _label(path: Path) -> str:
    first = path.stem.partition("_")[0].replace("lab", "lab ")
    return str(int(first)) if first.isdigit() else first.upper() if len(first) == 1 else first


def _record(net: str, data: str) -> dict[str, Any]:
    path = WEIGHTS_FOLDER / f"{net}.{data}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def paths() -> str:
    """Returns the table of ways through the book, with the hours of reading and of labs that chapters and labs state."""
    rows = []
    for name, (chapters, numbers) in PATHS.items():
        read = [next(BOOK.glob(f"{chapter}_*.ipynb")) for chapter in chapters.split()]
        labs = [next(BOOK.glob(f"labs/lab{number}_*.ipynb")) for number in numbers.split()]
        hours = [f"{sum(map(minutes, those)) / 60:.1f}" if those else "-" for those in (read, labs)]
        rows.append((name, _linked(read), _linked(labs, "labs/") or "-", *hours))
    return table(("way", "chapters", "labs", "hours to read", "hours of labs"), rows)


def minutes(path: Path) -> int:
    """Returns the minutes that a chapter or a lab states in its first cell."""
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    found = re.search(r"\*\*Time:\*\* (?:(\d+) minutes|half a day)", first)
    if found is None:
        raise ValueError(f"{path.name} states no minutes; write **Time:** in its first cell")
    return int(found[1] or 240)


def _linked(paths: Iterable[Path], folder: str = "") -> str:
    return ", ".join(f"[{_label(path)}]({folder}{path.name})" for path in paths)


def networks() -> str:
    """Returns the table of all networks."""
    rows = []
    for name, sizes in json.loads((LIBRARY / "net_sizes.json").read_text()).items():
        records = [(data, record) for data in SETS if (record := _record(name, data))]
        right = [f"{record['correct_int8'] / record['images']:.1%} {data}".replace("%", " %") for data, record in records]
        channels, height, width = sizes["input_shape"]
        where = chapters_with(rf"(?<![\w/]){name}(?!\w)")
        macs, constants = f"{sizes['macs']:,}", f"{sizes['parameters']:,}"
        rows.append((f"`{name}`", f"{height}x{width}x{channels}", macs, constants, ", ".join(right) or "no weights", where))
    return table(("network", "input", "MACs", "weights and biases", "right in int8", "chapters"), rows)


def stories() -> str:
    """Returns a line for each network: what it is and where it is from."""
    lines = []
    for name in nets.names():
        pruning, doc = pruning_of(name, SETS), nets.NETS[name].__doc__ if name in nets.NETS else None
        if pruning:
            before, after = pruning["partial_bytes"], pruning["peak_bytes"]
            said = (
                f"`{pruning['base']}` with channels taken away where its plan in parts peaks: {after:,} bytes, {before:,} before."
            )
        else:
            said = " ".join(doc.split("\n\n")[0].split()) if doc else "`lenet` on pictures of 100x100, with a larger dense layer."
        lines.append(f"- `{name}`: {said}\n")
    return "".join(lines)


def data_sets() -> str:
    """Returns the table of data sets: that of data/README.md, with the sizes of the parts that weights were trained on."""
    text = (DATA / "README.md").read_text(encoding="utf-8")
    rows = []
    for line in re.findall(r"^\| `.*\|$", text.partition("## CIFAR-10")[0], re.M):
        name, what, _, needs, terms = (cell.strip() for cell in line.strip("|").split("|"))
        plain = name.strip("`")
        record = next((record for net in nets.NETS if (record := _record(net, plain))), {})
        parts = [record[key] for key in ("training_images", "validation_images", "images")] if record else []
        needs = needs.replace(" below", "")
        where = chapters_with(rf"[\"']{plain}[\"']|--data {plain}\b|\.{plain}\b\"|simulator\.{plain}\b")
        rows.append((name, what, " + ".join(f"{part:,}" for part in parts) or "-", needs, terms, where))
    return table(("data", "what", "training + validation + test", "needs", "source; licence", "chapters"), rows)


def boards() -> str:
    """Returns the table of boards."""
    rows = []
    for name in board_names():
        board = find_board(name)
        memory = " + ".join(f"{bank.size_bytes >> 10}" for bank in board.sram if bank.same_as is None)
        low, high = simulator.error_band(board.cpu)
        core = f"{board.title.partition('(')[2].partition(',')[0]}, {board.clock_hz // 1_000_000} MHz"
        sold, where = board.title.partition(" (")[0], chapters_with(rf"(?<!\w){name}(?!\w)")
        rows.append((f"`{name}`: {sold}", core, memory, f"{board.flash_bytes >> 10:,}", f"{low:.2f} to {high:.2f}", where))
    return table(("board", "core and clock", "SRAM, KiB", "flash, KiB", "board / modelled cycles", "chapters"), rows)


@cache
def _times() -> dict[str, dict[str, Any]]:
    path = DATA / "records" / "claim_times.json"
    return {run["command"]: run for run in json.loads(path.read_text())["runs"]} if path.is_file() else {}


def _with_evidence() -> list[Claim]:
    return [claim for claim in all_claims() if claim.evidence]


def _how_long(commands: Iterable[str]) -> str:
    """Returns the minutes that commands take together, where all of them were timed."""
    runs = [_times().get(command) for command in commands]
    return "not timed" if None in runs else f"{sum(run['seconds'] for run in runs if run) / 60:.1f}"


def _needs(command: str) -> list[str]:
    """Returns what a command needs beside a checkout."""
    words = shlex.split(command)
    data = ["CIFAR-10"] if "cifar10" in words or "tools/trec_sweep.py" in words else []
    data += ["MLPerf Tiny's files"] if "tools/mlperf.py" in words else []
    if "plan" in words:
        return data
    return [*data, "gcc" if "host" in words or "tools/trec_memory.py" in words else "Arm gcc"]


def claims() -> str:
    """Returns the table of claims that can be tried: what each says, what it takes, and what to expect."""
    rows = []
    for claim in _with_evidence():
        commands = claim.evidence.commands
        needs = dict.fromkeys(need for command in commands for need in _needs(command))
        ours = claim.evidence.value()
        said = claim.paper.partition(",")[0].partition(" (")[0]
        figure = f"{ours:,.0f}" if ours >= 1000 else f"{ours:.4g}"
        expect = f"{figure}; {claim.verdict(ours)}" if claim.band else f"{figure}; no figure to compare"
        rows.append(
            (f"`{claim.id}`", f"{said}: {claim.metric}", claim.published, expect, _how_long(commands), ", ".join(needs) or "-")
        )
    return table(("claim", "what it says", "published", "expect", "minutes", "needs"), rows)


def commands() -> str:
    """Returns each command that stands behind a claim, under the names of its claims."""
    behind: dict[str, list[str]] = {}
    for claim in _with_evidence():
        for command in claim.evidence.commands:
            behind.setdefault(command, []).append(claim.id)
    lines = []
    for command, names in behind.items():
        typed = f"python {command}" if command.startswith("tools/") else f"python -m tinyredux {command}"
        run = _times().get(command)
        spent = f": {run['seconds']:,.0f} s, {run['most_mib']:,} MiB" if run else ": not timed"
        lines.append(f"\n    # {', '.join(names)}{spent}\n    {typed}\n")
    return "".join(lines) + "\n"


def citation() -> str:
    """Returns CITATION.cff as a line of a bibliography."""
    text = (BOOK.parent / "CITATION.cff").read_text(encoding="utf-8")
    said = {key: re.search(rf"^(?: *- )?{key}: \"?([^\"\n]+)", text, re.M) for key in ("name", "title", "version")}
    name, title, version = (found[1] if found else "" for found in said.values())
    return f"> {name}. *{title}*. Software and book, version {version}.\n"


BLOCKS: dict[str, Callable[[], str]] = {
    make.__name__: make for make in (paths, networks, stories, data_sets, boards, claims, commands, citation)
}  # fmt: skip


def pages() -> list[Path]:
    """Returns the pages that have such parts."""
    return [path for path in sorted(BOOK.glob("*.md")) if BLOCK.search(path.read_text(encoding="utf-8"))]


def main() -> None:
    """Writes them."""
    for path in pages():
        text = path.read_text(encoding="utf-8")
        path.write_text(filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
