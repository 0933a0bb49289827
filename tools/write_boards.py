"""Writes firmware/boards/*/memory.ld and board.h from the board files; a test says when they differ."""

from tinyredux.boards import board_names, find_board
from tinyredux.device import firmware_folder
from tinyredux.device.build import board_files


def main() -> None:
    """Writes the two files of every built-in board and of the emulator."""
    home = firmware_folder() / "boards"
    for name in [*board_names(), str(home / "emulator" / "board.json")]:
        board = find_board(name)
        board_files(board, home / board.name)


if __name__ == "__main__":
    main()
