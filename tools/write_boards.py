"""Writes what follows from the board files into firmware/boards: memory.ld, board.h, PlatformIO's environments.

A test says when they differ.
"""

from tinyredux.boards import BOARD_FOLDER, board_names, find_board
from tinyredux.device import firmware_folder
from tinyredux.device.build import board_files
from tinyredux.device.platformio import environment
from tinyredux.files import write_whole

HEAD = "; Written by tools/write_boards.py from the board files; platformio.ini reads it."


def environments() -> str:
    """Returns the environments of all built-in boards that PlatformIO builds for, the book's by default."""
    boards = [find_board(path.stem) for path in sorted(BOARD_FOLDER.rglob("*.json"))]
    known = [environment(board, f"firmware/boards/{board.name}", board.name) for board in boards if board.family[:5] == "stm32"]
    return "\n".join([HEAD, f"[platformio]\ndefault_envs = {', '.join(board_names())}\n", *known])


def main() -> None:
    """Writes the files of every built-in board and of the emulator."""
    home = firmware_folder() / "boards"
    for path in [*BOARD_FOLDER.rglob("*.json"), home / "emulator" / "board.json"]:
        board = find_board(str(path))
        board_files(board, home / board.name)
    write_whole(home / "platformio.ini", environments())


if __name__ == "__main__":
    main()
