"""Parts of test_link.py and test_board.py: a process that runs the board's real C, and a wire that fails on purpose."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyredux.device.link import LinkClosedError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ["firmware/runtime/main.c", "firmware/runtime/link.c", "tests/helpers/link_device.c"]
FLAGS = "-std=c11 -O1 -g -Wall -Wextra -Wconversion -Wshadow -Werror -fsanitize=address,undefined -fno-sanitize-recover=all"
INPUT_BYTES = 48
OUTPUT_BYTES = 10
MODEL_HASH = "0123456789abcdef"
FRAME_TIMEOUT_MS = 15
MODEL_H = """
#include <stdint.h>
#define TR_MODEL_HASH "{hash}"
#define TR_MODEL_NAME "xor"
#define TR_OP_COUNT 2
#define TR_INPUT_BYTES {input_bytes}
#define TR_OUTPUT_BYTES {output_bytes}
#define TR_ARENA_BYTES {input_bytes}
#define TR_SCRATCH_BYTES 0
extern const char *const tr_op_names[TR_OP_COUNT];
extern int8_t tr_arena[TR_ARENA_BYTES + TR_SCRATCH_BYTES];
int8_t *tr_input(void);
const int8_t *tr_output(void);
void tr_model_run(void);
"""


def build_device(folder: Path, model_hash: str = MODEL_HASH, timeout_ms: int = FRAME_TIMEOUT_MS) -> Path:
    """Returns the device program: the board's own C, on a port made of standard input and output."""
    (folder / "model.h").write_text(MODEL_H.format(hash=model_hash, input_bytes=INPUT_BYTES, output_bytes=OUTPUT_BYTES))
    (folder / "board.h").write_text('#define TR_BOARD_NAME "test"\n')
    command = ["gcc", *FLAGS.split(), f"-DTR_FRAME_TIMEOUT_MS={timeout_ms}", "-Ifirmware/include", f"-I{folder}", *SOURCES]
    subprocess.run([*command, "-o", str(folder / "device")], check=True, cwd=ROOT)
    return folder / "device"


def expected_output(data: bytes) -> bytes:
    """Returns what the device's model computes."""
    return bytes(byte ^ sum(data) & 255 for byte in data[:OUTPUT_BYTES])


def expected_cycles(data: bytes) -> tuple[int, int]:
    """Returns the cycles that the device's model reports."""
    return 1000 + (sum(data) & 255), 500


class DeviceProcess:
    """A Transport to a device process over two pipes."""

    def __init__(self, program: Path, environment: dict[str, str] | None = None) -> None:
        self.name = "pipe"
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env={**os.environ, **(environment or {})}
        )
        assert self.process.stdin and self.process.stdout
        self.to_device, self.from_device = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.banner = b""
        while b"READY" not in self.banner or not self.banner.endswith(b"\n"):
            self.banner += self.read(10.0)

    def read(self, timeout_s: float) -> bytes:
        """Returns bytes of the device, or nothing after the time."""
        ready, _, _ = select.select([self.from_device], [], [], timeout_s)
        data = os.read(self.from_device, 4096) if ready else b""
        if ready and not data:
            raise LinkClosedError("the device process has ended")
        return data

    def write(self, data: bytes) -> None:
        """Sends bytes to the device."""
        os.write(self.to_device, data)

    def reset(self) -> None:
        """Presses the reset button."""
        self.process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


KINDS = ("drop", "duplicate", "flip", "truncate", "garbage", "reset", "delay")


@dataclass
class Fault:
    """What happens to the byte at `position` of the bytes that go one way."""

    kind: str
    position: int


class FaultyWire:
    """A Transport around another one that damages what passes. Faults are armed per exchange and strike once each."""

    def __init__(self, inner: DeviceProcess, chance: random.Random) -> None:
        self.inner, self.chance, self.name = inner, chance, inner.name
        self.faults: dict[str, list[Fault]] = {"out": [], "in": []}
        self.passed = {"out": 0, "in": 0}
        self.struck = 0

    def arm(self, out: list[Fault], into: list[Fault]) -> None:
        """Sets the faults of the next exchange."""
        self.faults = {"out": sorted(out, key=lambda fault: fault.position), "in": sorted(into, key=lambda fault: fault.position)}
        self.passed = {"out": 0, "in": 0}

    def read(self, timeout_s: float) -> bytes:
        """Returns what is left of the device's bytes."""
        until = time.monotonic() + timeout_s
        damaged = bytearray()
        while not damaged and (left_s := until - time.monotonic()) > 0:
            self._pass("in", self.inner.read(left_s), damaged.extend)
        return bytes(damaged)

    def write(self, data: bytes) -> None:
        """Sends what is left of the host's bytes."""
        self._pass("out", data, self.inner.write)

    def close(self) -> None:
        """Closes the inner transport."""
        self.inner.close()

    def _pass(self, way: str, data: bytes, send: Callable[[bytes], None]) -> None:
        start = self.passed[way]
        self.passed[way] += len(data)
        while self.faults[way] and self.faults[way][0].position < start + len(data):
            fault = self.faults[way].pop(0)
            here = max(fault.position, start) - start
            send(data[:here])
            data, start = data[here:], start + here
            data = self._strike(fault.kind, data)
        if data:
            send(data)

    def _strike(self, kind: str, data: bytes) -> bytes:
        self.struck += 1
        if kind == "drop":
            return data[self.chance.choice((1, 1, 1, 2, 7)) :]
        if kind == "duplicate":
            return data[:1] + data
        if kind == "flip":
            return bytes([data[0] ^ 1 << self.chance.randrange(8)]) + data[1:] if data else data
        if kind == "truncate":
            return b""
        if kind == "garbage":
            return (
                self.chance.choice((self.chance.randbytes(9), b"\n", b"\r\n\0\xff\n", b"\ninfo\n", b"*00000000\n", b"#1 ran "))
                + data
            )
        if kind == "reset":
            self.inner.reset()
            return data
        time.sleep(self.chance.choice((0.005, 0.03, 0.09)))  # below and above the waits of both sides
        return data
