"""What builds and runs a compiled network: compilers, the host, the simulator, boards behind a serial line.

`build` compiles the firmware as platformio.ini says; `host`, `simulated` and `board` run it behind the protocol of `target`;
`link` is the serial protocol, `served` a simulated board behind a pseudo-terminal, `flash` programs a real one. Chapter 5.
"""

from __future__ import annotations

from tinyredux.device import build
from tinyredux.device.build import (
    BuildError,
    DoesNotFit,
    Firmware,
    MissingTool,
    build_firmware,
    build_host,
    check_is_checkout,
    default_build_folder,
    firmware_folder,
)
from tinyredux.device.target import RawMeasurement, Target

__all__ = [
    "BuildError", "DoesNotFit", "Firmware", "MissingTool", "RawMeasurement", "Target", "board", "build", "build_firmware",
    "build_host", "check_is_checkout", "default_build_folder", "firmware_folder", "flash", "host", "link", "serial_port",
    "served", "simulated",
]  # fmt: skip
