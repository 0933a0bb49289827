"""What the papers claim and what we find: each claim with its published value, our record, a band and a verdict."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from tinyredux.device import check_is_checkout
from tinyredux.files import ROOT, checked

CLAIMS_FILE = Path(__file__).parent / "claims.json"


@dataclass(frozen=True)
class Evidence:
    """Where our figure is: the mean of some ratios of numbers in records, times a factor, and the commands that make the records.

    A ratio is a number, or a number and its divisor; with `fewer` the mean counts as what it is below 1. A number is named by its
    JSON record and the keys that lead to it, RECORD#KEY/KEY; a key is a name, or of a list the number or the name of one of its
    entries. A command is the words behind `python -m tinyredux`, or behind `python` where it begins with `tools/`; no shell reads
    it.
    """

    ratios: tuple[tuple[str, ...], ...]
    commands: tuple[str, ...]
    factor: float = 1.0
    fewer: bool = False

    @property
    def records(self) -> frozenset[Path]:
        """All records that the figure is computed from."""
        return frozenset(Path(number.partition("#")[0]) for ratio in self.ratios for number in ratio)

    def value(self) -> float | None:
        """Returns our figure, None where a record or the value is not there."""
        shares = []
        for number, *divisor in self.ratios:
            ours, other = _look_up(number), _look_up(divisor[0]) if divisor else 1
            if ours is None or not other:
                return None
            shares.append(ours / other)
        return round(self.factor * (1 - fmean(shares) if self.fewer else fmean(shares)), 4)


@dataclass(frozen=True)
class Claim:
    """One published figure. `band` is the interval in which ours counts as reproduced; beyond its better end: exceeded.

    Where nobody published a figure there is no band, and ours is told without a verdict on it.
    """

    id: str
    paper: str
    where: str
    metric: str
    published: str
    chapter: str
    differs: str
    evidence: Evidence | None = None
    band: tuple[float, ...] | None = None
    higher_is_better: bool = True

    def verdict(self, ours: float | None) -> str:
        """Returns "reproduced", "exceeded", "not reproduced" or, without evidence or a published figure, "not attempted"."""
        if ours is None or self.band is None:
            return "not attempted"
        low, high = self.band
        if low <= ours <= high:
            return "reproduced"
        return "exceeded" if (ours > high) == self.higher_is_better else "not reproduced"


def all_claims() -> tuple[Claim, ...]:
    """Returns the claims of claims.json, in its order."""
    return tuple(checked(Claim, row, CLAIMS_FILE.name) for row in json.loads(CLAIMS_FILE.read_text()))


def _look_up(number: str) -> float | None:
    """Returns a number of a record by its name, RECORD#KEY/KEY, None where it or the record is not there."""
    record, _, keys = number.partition("#")
    content = json.loads((ROOT / record).read_text()) if (ROOT / record).is_file() else None
    for key in keys.split("/"):
        if isinstance(content, list) and key.lstrip("-").isdigit():
            content = content[int(key)]
        elif isinstance(content, list):
            content = next((entry for entry in content if entry.get("name") == key), None)
        else:
            content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, int | float) else None


def reproduce(ids: Sequence[str] = (), profile: str = "quick") -> list[dict[str, Any]]:
    """Returns the claims as the contract's JSON rows. "quick" reads the records; "full" makes them again first.

    A row's `basis` says whether all the records that it reads were made again now. A command that fails does not stop the other
    claims: `failed` says with which words it ended. Raises ValueError for an unknown claim or profile.
    """
    known = {claim.id: claim for claim in all_claims()}
    if unknown := [name for name in ids if name not in known]:
        raise ValueError(f"unknown claim {', '.join(unknown)}; known: {', '.join(known)}")
    if profile not in ("quick", "full"):
        raise ValueError(f"profile is {profile!r}, expected quick or full")
    if profile == "full":
        check_is_checkout("making records again")
    chosen = [known[name] for name in ids or known]
    before = {record: _written(record) for claim in chosen if claim.evidence for record in claim.evidence.records}
    run = cache(_run) if profile == "full" else lambda command: ""  # several claims share a command
    rows = []
    for claim in tqdm(chosen, "claims", leave=False, disable=None):
        started = time.monotonic()
        commands, records = (claim.evidence.commands, claim.evidence.records) if claim.evidence else ((), frozenset())
        failed = "; ".join(filter(None, map(run, commands)))
        remade = not failed and all(_written(record) != before[record] for record in records)
        rows.append(_row(claim, remade, failed, time.monotonic() - started))
    return rows


def _row(claim: Claim, remade: bool, failed: str, seconds: float) -> dict[str, Any]:
    ours = None if claim.evidence is None else claim.evidence.value()
    told = {name: getattr(claim, name) for name in ("id", "paper", "where", "metric", "published")}
    return told | {
        "ours": "none" if ours is None else ours, "band": list(claim.band) if claim.band else None,
        "verdict": claim.verdict(ours), "basis": None if ours is None else "remade" if remade else "recorded",
        "chapter": claim.chapter, "command": "; ".join(map(_typed, claim.evidence.commands)) if claim.evidence else "",
        "seconds": round(seconds, 1), "differs": claim.differs, "failed": failed,
    }  # fmt: skip


def _typed(command: str) -> str:
    return f"python {command}" if command.startswith("tools/") else f"python -m tinyredux {command}"


def _written(record: Path) -> int:
    """Returns when a record was last written, 0 where it is not there."""
    path = ROOT / record
    return path.stat().st_mtime_ns if path.is_file() else 0


def _run(command: str) -> str:
    """Runs a command in the checkout. Returns "" or, where it failed, its exit code and the last line that it said."""
    done = subprocess.run([sys.executable, *shlex.split(_typed(command))[1:]], cwd=ROOT, capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1:] or ["nothing said"]
    return "" if done.returncode == 0 else f"`{_typed(command)}` ended with exit code {done.returncode}: {said[0]}"
