"""Writes what follows from the board files: memory.ld, board.h and PlatformIO's environments in firmware/boards, README's table.

A test says when they differ.
"""

import re

from tinyredux.boards import BOARD_FOLDER, board_names, find_board
from tinyredux.device import firmware_folder
from tinyredux.device.build import board_files
from tinyredux.device.platformio import environment
from tinyredux.files import write_whole

TOOLS = {
    "stlink": "OpenOCD, its ST-Link",
    "jlink": "nrfjprog or OpenOCD, its J-Link",
    "bossa": "bossac, its bootloader",
    "uf2": "picotool, or a copy to its drive",
}
MLPERF = """[env:mlperf_{board.name}]
extends = env:{board.name}
build_src_filter = ${{sources.{board.family}}} ${{sources.mlperf}}
"""
HEAD = "; Written by tools/write_boards.py from the board files; platformio.ini reads it."


def environments() -> str:
    """Returns the environments of all built-in boards that PlatformIO builds for, the book's by default.

    Those of the book have another one, which builds the program that answers the runner of MLPerf Tiny.
    """
    boards = [find_board(path.stem) for path in sorted(BOARD_FOLDER.rglob("*.json"))]
    known = [environment(board, f"firmware/boards/{board.name}", board.name) for board in boards if board.family[:5] == "stm32"]
    known += [MLPERF.format(board=board) for board in map(find_board, board_names())]
    return "\n".join([HEAD, f"[platformio]\ndefault_envs = {', '.join(board_names())}\n", *known])


def readme(text: str) -> str:
    """Returns the text of README.md with the table of the built-in boards between its marks, the book's first."""
    names = [*board_names(), *(path.stem for path in sorted((BOARD_FOLDER / "more").glob("*.json")))]
    rows = ["| `--board` | board | flash, KiB | SRAM, KiB | written by |", "| --- | --- | --- | --- | --- |"]
    for board in map(find_board, names):
        sizes = f"{board.flash_bytes // 1024:,} | {board.sram_bytes // 1024}"
        rows.append(f"| `{board.name}` | {board.title} | {sizes} | {TOOLS[board.upload]} |")
    table = "\n".join([*rows, ""])
    return re.sub("(<!-- boards.*?-->\n).*(<!-- end of boards -->)", lambda marks: marks[1] + table + marks[2], text, flags=re.S)


def main() -> None:
    """Writes the files of every built-in board and of the emulator."""
    home = firmware_folder() / "boards"
    for path in [*BOARD_FOLDER.rglob("*.json"), home / "emulator" / "board.json"]:
        board = find_board(str(path))
        board_files(board, home / board.name)
    write_whole(home / "platformio.ini", environments())
    page = home.parents[1] / "README.md"
    write_whole(page, readme(page.read_text()))


if __name__ == "__main__":
    main()
