"""The build: scripts and headers of boards, flags in one home, caching, errors that help, PlatformIO's equal bytes."""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tinyredux.boards import BOARD_FOLDER, Board, Memory, board_names, find_board
from tinyredux.device import build, platformio
from tinyredux.simulator import read_elf

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ROOT / "firmware" / "boards"

NAMES = sorted(path.stem for path in BOARD_FOLDER.rglob("*.json"))
DISCO = find_board("disco_f469ni")
GOLDEN = ROOT / "tests" / "golden" / "three_layers"
FAST_S = """#if defined(__ARM_FEATURE_DSP)
    .syntax unified
    .thumb
    .section .text.tr_keep, "ax", %progbits
    .global tr_keep
    .thumb_func
tr_keep:
    vmov s0, r0
    vmov r0, s0
    bx lr
#endif
"""


def write_model(folder: Path, arena: int = 448) -> Path:
    """Returns a copy of the golden Artifact, and a function that uses registers of the FPU, as generated kernels do."""
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    header = (folder / "model.h").read_text()
    (folder / "model.h").write_text(header.replace("ARENA_BYTES 448", f"ARENA_BYTES {arena}"))
    (folder / "fast.S").write_text(FAST_S)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder() -> Path:
    """Where all tests build: what another has compiled of the same text by the same command is there."""
    return build.default_build_folder()


def loadable_bytes(elf: Path) -> dict[int, bytes]:
    return {segment.load_address: segment.data for segment in read_elf(elf).segments if segment.data}


@pytest.mark.parametrize("name", [*NAMES, str(BOARDS / "emulator" / "board.json")], ids=lambda name: name.split("/")[-1])
def test_committed_scripts_and_headers_are_those_of_the_board_file(name: str) -> None:
    board = find_board(name)
    home = BOARDS / board.name
    assert (home / "memory.ld").read_text() == build.linker_script(board), "run tools/write_boards.py"
    assert (home / "board.h").read_text() == build.board_header(board), "run tools/write_boards.py"


def test_platformio_knows_every_stm32() -> None:
    """The environments are written from the board files, and nothing about a board stands in platformio.ini again."""
    spec = importlib.util.spec_from_file_location("write_boards", ROOT / "tools" / "write_boards.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (BOARDS / "platformio.ini").read_text() == module.environments(), "run tools/write_boards.py"
    page = (ROOT / "README.md").read_text()
    assert page == module.readme(page) and all(f"| `{name}` | " in page for name in NAMES), "run tools/write_boards.py"
    config = configparser.ConfigParser(interpolation=None)
    config.read(BOARDS / "platformio.ini")
    known = {name for name in NAMES if find_board(name).family.startswith("stm32")}
    answering = {f"mlperf_{name}" for name in board_names()}
    assert {section[4:] for section in config if section.startswith("env:")} == known | answering
    assert not [name for name in known - {"disco_f469ni"} if name in (ROOT / "platformio.ini").read_text()]


def test_equal_input_gives_the_same_file_and_changed_weights_another(tmp_path: Path, folder: Path) -> None:
    first = build.build_firmware(write_model(tmp_path / "a"), DISCO, folder).elf
    assert build.build_firmware(write_model(tmp_path / "b"), DISCO, folder).elf == first
    weights = tmp_path / "a" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[::-1])
    changed = build.build_firmware(tmp_path / "a", DISCO, folder).elf
    assert changed != first and changed.read_bytes() != first.read_bytes()


SMALL_FLASH = replace(DISCO, flash=Memory("flash", 0x08000000, 2048))
SMALL_SRAM = replace(DISCO, sram=(Memory("sram", 0x20000000, 8192),))


@pytest.mark.parametrize(
    ("board", "region", "there"), [(SMALL_FLASH, "FLASH", 2048), (SMALL_SRAM, "SRAM", 8192)], ids=["FLASH", "SRAM"]
)
def test_what_does_not_fit_is_named_with_its_bytes(board: Board, region: str, there: int, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(build.DoesNotFit) as caught:
        build.build_firmware(write_model(tmp_path / "large", arena=7000), board, folder)
    error = caught.value
    assert (error.region, error.there_bytes) == (region, there) and error.needed_bytes > there
    assert f"needs {error.needed_bytes} bytes" in str(error) and f"has {there}" in str(error)
    assert region == "FLASH" or "tr_arena 7112 bytes" in str(error)


def test_errors_say_what_to_do(model: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's own words come with file and line; a missing compiler is one sentence with the fix."""
    wrong = write_model(tmp_path / "wrong") / "model.c"
    wrong.write_text(wrong.read_text().replace("tr_mark(1);", "tr_mark(1)"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no PlatformIO environment"):
        build.build_firmware(model, replace(DISCO, mcu="nrf52840"), folder, pio=True)
    for error, words, sources, board in (
        (build.BuildError, r"model\.c:\d+:\d+: error: expected ';'", wrong.parent, DISCO),
        (ValueError, "holds no C file", tmp_path / "empty", DISCO),
        (ValueError, r"no port for chip family 'stm32g0'.*stm32f4", model, replace(DISCO, mcu="stm32g071")),
        (build.MissingTool, "apt-get install --no-install-recommends gcc-arm-none-eabi", model, DISCO),
    ):  # fmt: skip
        if error is build.MissingTool:
            monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(error, match=words):
            build.build_firmware(sources, board, folder)


OFFLINE = (ROOT / ".pio-core" / "packages" / "tool-scons").is_dir()
NEEDS_PIO = pytest.mark.skipif(
    not OFFLINE, reason="PlatformIO brings another compiler from its registry; offline both use the same"
)


OF_CORES = {find_board(name).cpu: name for name in reversed(NAMES) if find_board(name).family.startswith("stm32")}


@NEEDS_PIO
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in OF_CORES.values() else pytest.mark.sweep)
    for name in NAMES if find_board(name).family.startswith("stm32")
])  # fmt: skip
def test_platformio_builds_the_same_bytes(name: str, model: Path, folder: Path) -> None:
    """By the project that is generated for any board, a user's own too. Flags differ by core, one board of each; the sources of
    each family are compiled by tests/device/test_boards.py, and those of one more by PlatformIO below."""
    board = replace(find_board(name), name=f"my_{name}")
    plain = build.build_firmware(model, board, folder)
    by_platformio = build.build_firmware(model, board, folder, pio=True)
    assert loadable_bytes(plain.elf) == loadable_bytes(by_platformio.elf)
    assert plain.bss_bytes == by_platformio.bss_bytes


@NEEDS_PIO
def test_platformio_builds_the_program_for_mlperf(model: Path, folder: Path, tmp_path: Path) -> None:
    name = "nucleo_l4r5zi"
    done = pio("run", "-e", f"mlperf_{name}", TINYREDUX_MODEL=str(model), PLATFORMIO_WORKSPACE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    plain = build.build_firmware(model, find_board(name), folder, program="mlperf")
    assert loadable_bytes(plain.elf) == loadable_bytes(tmp_path / "build" / f"mlperf_{name}" / "firmware.elf")


def pio(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "platformio", *arguments, "-d", str(ROOT)]
    _, ours = platformio.run(ROOT, ROOT)
    del ours["TINYREDUX_MODEL"]
    return subprocess.run(command, capture_output=True, text=True, env={**ours, **environment}, timeout=300)


@pytest.mark.slow
@NEEDS_PIO
@pytest.mark.parametrize("environment", ["emulator", pytest.param("native", marks=pytest.mark.sweep)])
def test_pio_test(environment: str, tmp_path: Path) -> None:
    """The vectors that test_firmware.py compiles by itself, on this computer too."""
    if environment == "emulator" and not shutil.which("qemu-system-arm"):
        pytest.skip("qemu-system-arm is missing")
    done = pio("test", "-e", environment, PLATFORMIO_WORKSPACE_DIR=str(tmp_path))
    assert done.returncode == 0 and done.stdout.count("PASSED") >= 4, done.stdout + done.stderr


@pytest.mark.slow
@NEEDS_PIO
def test_an_upload_without_a_board(model: Path, tmp_path: Path) -> None:
    done = pio("run", "-e", DISCO.name, "-t", "upload", TINYREDUX_MODEL=str(model), PLATFORMIO_WORKSPACE_DIR=str(tmp_path))
    assert done.returncode != 0
    assert "OpenOCD is not installed; run:" in done.stdout or "No board was written:" in done.stdout


def test_pio_offline_leaves_a_users_own_settings_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "platformio_local.ini").write_text("[platformio]\n")
    command = [sys.executable, str(tmp_path / "tools" / "pio_offline.py"), "--force"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0 and "your own" in done.stderr
    assert not (tmp_path / ".pio-core").exists()
