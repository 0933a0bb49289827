"""The serial protocol: 1,000 exchanges with the real C over a wire that damages them, and each failure that has a name."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from link_tools import (
    INPUT_BYTES,
    KINDS,
    MODEL_HASH,
    DeviceProcess,
    Fault,
    FaultyWire,
    build_device,
    expected_cycles,
    expected_output,
)
from tinyredux.link import Link, LinkClosedError, LinkError, Patience, WrongModelError, seal, unseal

SEED = 20260
PATIENCE = Patience(reply_s=0.06, run_s=0.12, quiet_s=0.03, attempts=5, total_s=2.0)
HANG_S = PATIENCE.total_s + 3.0  # a loaded machine is no hang
STRANDS = 8


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the device program."""
    return build_device(tmp_path_factory.mktemp("device"))


@dataclass
class Tally:
    """Outcomes of many exchanges."""

    right: int = 0
    refused: int = 0
    wrong: int = 0
    hung: int = 0
    struck: int = 0
    slowest_s: float = 0.0


def plan_faults(chance: random.Random) -> tuple[list[Fault], list[Fault]]:
    """Returns faults for one exchange: mostly one, sometimes up to twenty, spread over all attempts."""
    ways: tuple[list[Fault], list[Fault]] = ([], [])
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 6, 20))):
        chance.choice(ways).append(Fault(chance.choice(KINDS), chance.randrange(chance.choice((60, 200, 600)))))
    return ways


def exchange(link: Link, chance: random.Random) -> bool:
    """Makes one exchange. Returns whether its result is right in every number."""
    data = bytearray(chance.randbytes(INPUT_BYTES))
    if chance.random() < 0.3:  # an input that looks like the protocol
        text = chance.choice((b"\ninfo\n", b"\nmeasure 1\n", b"*00000000\n", seal("#7 done 1")))
        data[:0] = text
    data = data[:INPUT_BYTES]
    kind = chance.random()
    if kind < 0.1:
        info = link.info()
        return (info.model_hash, info.input_bytes, info.output_bytes, info.ops) == (MODEL_HASH, INPUT_BYTES, 10, 2)
    if kind < 0.2:
        lines = link.ask("measure 2")
        last = dict(word.split("=") for word in lines[-1].split()[1:])
        return lines[0] == "op 0 first" and len(lines) == 5 and last == PATTERN
    result = link.run(bytes(data))
    return (result.output, result.cycles_per_op) == (expected_output(data), expected_cycles(data)) and result.stack_bytes == 1234


PATTERN = {"repeats": "2", "min": "1699", "median": "1699", "max": "1699", "stack": "1234", "output": "bbd8c5ad"}


def strand(program: Path, seed: int, exchanges: int) -> Tally:
    """Makes many exchanges with one device over one bad wire."""
    tally, chance = Tally(), random.Random(seed)
    wire = FaultyWire(DeviceProcess(program), chance)
    link = Link(wire, MODEL_HASH, PATIENCE)
    for _ in range(exchanges):
        wire.arm(*plan_faults(chance))
        start = time.monotonic()
        try:
            if exchange(link, chance):
                tally.right += 1
            else:
                tally.wrong += 1
        except LinkClosedError:
            raise
        except LinkError:
            tally.refused += 1
        seconds = time.monotonic() - start
        tally.slowest_s = max(tally.slowest_s, seconds)
        tally.hung += seconds > HANG_S
    tally.struck = wire.struck
    wire.arm([], [])
    assert Link(wire, MODEL_HASH).info().input_bytes == INPUT_BYTES, "the board did not come back after the faults"
    wire.close()
    return tally


def test_a_thousand_damaged_exchanges(device: Path) -> None:
    """No damaged exchange hangs, none gives a wrong result, and most give the right one by asking again."""
    with ThreadPoolExecutor(STRANDS) as pool:
        tallies = list(pool.map(lambda i: strand(device, SEED + i, 1000 // STRANDS), range(STRANDS)))
    total = {name: sum(getattr(tally, name) for tally in tallies) for name in ("right", "refused", "wrong", "hung", "struck")}
    print(f"seed {SEED}: {total}, slowest {max(tally.slowest_s for tally in tallies):.2f} s")
    assert total["right"] + total["refused"] == 1000
    assert total["wrong"] == 0 and total["hung"] == 0
    assert total["struck"] > 1000 and total["right"] > 900
