"""The exercises of the book by their names: those that the modules of book/exercises register, with what labs give."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tinyredux.course.given import BRANCH_SIZES, BRANCH_SPANS
from tinyredux.course.teaching import EXERCISE_FOLDER, REGISTERED, Exercise

__all__ = ["BRANCH_SIZES", "BRANCH_SPANS", "EXERCISES", "MODULES"]


def _loaded(path: Path) -> ModuleType:
    """Returns the module of a file, which has run."""
    spec = importlib.util.spec_from_file_location(f"tinyredux_exercises_{path.stem}", path)
    assert spec and spec.loader
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _place(exercise: Exercise) -> tuple[bool, int]:
    """Returns where an exercise stands: those of labs first, then those of chapters, by their numbers."""
    home = exercise.name.partition(".")[0]
    return not home.startswith("lab"), int(home.removeprefix("lab").removeprefix("chapter"))


MODULES = {path.stem: _loaded(path) for path in sorted(EXERCISE_FOLDER.glob("*.py"))}
EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in sorted(REGISTERED, key=_place)}
