"""The build: scripts and headers of boards, flags in one home, caching, errors that help, PlatformIO's equal bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tinyredux.boards import Board, Memory, board_names, find_board
from tinyredux.device import build
from tinyredux.simulator import read_elf

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ROOT / "firmware" / "boards"

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


def loadable_bytes(elf: Path) -> dict[int, bytes]:
    return {segment.load_address: segment.data for segment in read_elf(elf).segments if segment.data}


def all_boards() -> list[str]:
    return [*board_names(), str(BOARDS / "emulator" / "board.json")]


@pytest.mark.parametrize("name", all_boards(), ids=lambda name: Path(name).parent.name or name)
def test_committed_scripts_and_headers_are_written_from_the_board_file(name: str) -> None:
    board = find_board(name)
    assert (BOARDS / board.name / "memory.ld").read_text() == build.linker_script(board), "run tools/write_boards.py"
    assert (BOARDS / board.name / "board.h").read_text() == build.board_header(board), "run tools/write_boards.py"


@pytest.mark.parametrize("name", all_boards(), ids=lambda name: Path(name).parent.name or name)
def test_platformio_takes_the_flags_and_sources_of_the_plain_build(name: str) -> None:
    board = find_board(name)
    environment = f"env:{board.pio_env}"
    assert build.option(environment, "build_flags").split() == [*build.board_flags(board), f"-Ifirmware/boards/{board.name}"]
    assert build.option(environment, "board_build.ldscript") == f"firmware/boards/{board.name}/memory.ld"
    if board.pio_env != "emulator":
        assert build.option(environment, "build_src_filter") == build.option("sources", board.family)


@pytest.mark.parametrize("name", board_names())
def test_firmware_of_every_board(name: str, model: Path, folder: Path) -> None:
    board = find_board(name)
    firmware = build.build_firmware(model, board, folder)
    assert firmware.compiler.startswith("arm-none-eabi-gcc") and f"-mcpu={board.cpu}" in firmware.flags
    assert firmware.text_bytes > 1000 and firmware.rodata_bytes >= 4 and firmware.data_bytes == 0 and firmware.bss_bytes >= 8
    first = loadable_bytes(firmware.elf)[board.flash.base]
    assert int.from_bytes(first[:4], "little") == board.sram[0].base + board.sram_bytes, "the stack starts at the end of SRAM"
    assert int.from_bytes(first[4:8], "little") & 1, "the reset vector is a Thumb address"


def test_equal_input_gives_the_same_file_and_changed_weights_another(tmp_path: Path) -> None:
    board = find_board("disco_f469ni")
    first = build.build_firmware(write_model(tmp_path / "a"), board, tmp_path / "build").elf
    assert build.build_firmware(write_model(tmp_path / "b"), board, tmp_path / "build").elf == first
    weights = tmp_path / "a" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[::-1])
    changed = build.build_firmware(tmp_path / "a", board, tmp_path / "build").elf
    assert changed != first and changed.read_bytes() != first.read_bytes()


def test_a_board_file_of_the_user_builds(tmp_path: Path, model: Path, folder: Path) -> None:
    fields = json.loads((ROOT / "tinyredux" / "board_files" / "disco_f469ni.json").read_text())
    console = {"kind": "usart-v1", "base": "0x40004400", "tx": "PA2", "rx": "PA3", "alternate": 7}
    fields |= {"name": "mine", "mcu": "stm32f411ret6", "clock_hz": 100000000, "pio_env": "", "console": console}
    fields["sram"] = [{"base": "0x20000000", "size_bytes": 131072}]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(fields))
    firmware = build.build_firmware(model, find_board(str(path)), folder)
    assert int.from_bytes(loadable_bytes(firmware.elf)[0x08000000][:4], "little") == 0x20020000
    with pytest.raises(ValueError, match="no environment"):
        build.build_firmware(model, find_board(str(path)), folder, pio=True)


def test_unknown_chip_family_is_named(model: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no port for chip family 'stm32g0'.*stm32f4"):
        build.build_firmware(model, replace(find_board("disco_f469ni"), mcu="stm32g071"), folder)


def small(region: str) -> Board:
    board = find_board("disco_f469ni")
    if region == "FLASH":
        return replace(board, flash=Memory("flash", 0x08000000, 2048))
    return replace(board, sram=(Memory("sram", 0x20000000, 8192),))


@pytest.mark.parametrize(("region", "largest"), [("FLASH", "weights"), ("SRAM", "tr_arena 7112 bytes")])
def test_what_does_not_fit_is_named_with_its_bytes(region: str, largest: str, tmp_path: Path, folder: Path) -> None:
    board = small(region)
    with pytest.raises(build.DoesNotFit) as caught:
        build.build_firmware(write_model(tmp_path / "large", arena=7000), board, folder)
    error = caught.value
    there = board.flash_bytes if region == "FLASH" else board.sram_bytes
    assert (error.region, error.there_bytes) == (region, there) and error.needed_bytes > there
    assert f"needs {error.needed_bytes} bytes" in str(error) and f"has {there}" in str(error)
    assert region == "FLASH" or largest in str(error)


def test_the_compilers_words_come_with_file_and_line(tmp_path: Path, folder: Path) -> None:
    model = write_model(tmp_path / "wrong") / "model.c"
    model.write_text(model.read_text().replace("tr_mark(1);", "tr_mark(1)"))
    with pytest.raises(build.BuildError, match=r"model\.c:\d+:\d+: error: expected ';'"):
        build.build_firmware(model.parent, find_board("disco_f469ni"), folder)


def test_a_missing_compiler_is_one_sentence_with_the_fix(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(build.MissingTool, match="apt-get install --no-install-recommends gcc-arm-none-eabi"):
        build.build_firmware(model, find_board("disco_f469ni"), folder)


def test_an_empty_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="holds no C file"):
        build.build_firmware(tmp_path, find_board("disco_f469ni"), folder)


def offline() -> bool:
    return (ROOT / ".pio-core" / "packages" / "tool-scons").is_dir()


@pytest.mark.skipif(not offline(), reason="PlatformIO with its registry brings another compiler; offline both use the same")
@pytest.mark.parametrize("name", board_names())
def test_platformio_builds_the_same_bytes(name: str, model: Path, folder: Path) -> None:
    board = find_board(name)
    plain = build.build_firmware(model, board, folder)
    by_platformio = build.build_firmware(model, board, folder, pio=True)
    assert loadable_bytes(plain.elf) == loadable_bytes(by_platformio.elf)
    assert plain.bss_bytes == by_platformio.bss_bytes


def pio(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "platformio", *arguments, "-d", str(ROOT)]
    _, ours = build.platformio_run(ROOT, find_board("disco_f469ni"), ROOT)
    del ours["TINYREDUX_MODEL"]
    return subprocess.run(command, capture_output=True, text=True, env={**ours, **environment}, timeout=300)


@pytest.mark.skipif(not offline(), reason="asks PlatformIO's registry")
def test_pio_test_on_host_and_emulator(tmp_path: Path) -> None:
    emulator = ("-e", "emulator") if shutil.which("qemu-system-arm") else ()
    done = pio("test", "-e", "native", *emulator, PLATFORMIO_WORKSPACE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") >= 4 * (2 if emulator else 1)


@pytest.mark.skipif(not offline(), reason="asks PlatformIO's registry")
def test_upload_without_a_board_says_so(model: Path, tmp_path: Path) -> None:
    done = pio("run", "-e", "disco_f469ni", "-t", "upload", TINYREDUX_MODEL=str(model), PLATFORMIO_WORKSPACE_DIR=str(tmp_path))
    assert done.returncode != 0
    assert "OpenOCD is not installed; run:" in done.stdout or "No board was written:" in done.stdout


def test_pio_offline_leaves_a_users_own_settings_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "platformio_local.ini").write_text("[platformio]\n")
    command = [sys.executable, str(tmp_path / "tools" / "pio_offline.py"), "--force"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0 and "your own" in done.stderr
    assert not (tmp_path / ".pio-core").exists()
