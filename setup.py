"""The one step of a build that pyproject.toml cannot say: a wheel takes along what the library reads beside its Python.

The files keep their places, below tinyredux/_data; tinyredux/files.py says where they are looked for. An editable install uses
those of the checkout.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

DATA = (
    "platformio.ini", "firmware/**/*", "tools/pio_sources.py", "tools/pio_link.py", "data/records/**/*.json", "book/labs/*.ipynb",
    "book/exercises/*",
)  # fmt: skip
LEFT_OUT = {"generated", "test", "__pycache__", ".ipynb_checkpoints"}


class BuildData(Command):
    """Copies the files of DATA into the package that is built, after it has removed what an earlier build left there."""

    user_options = ()  # type: ignore[assignment]
    editable_mode = False  # setuptools sets it

    def initialize_options(self) -> None:
        """Leaves the folder to `build_py`."""
        self.build_lib = ""

    def finalize_options(self) -> None:
        """Takes the folder of `build_py`."""
        self.build_lib = self.get_finalized_command("build_py").build_lib

    def run(self) -> None:
        """Copies the files, unless they are used where they lie."""
        if self.editable_mode:
            return
        shutil.rmtree(Path(self.build_lib) / "tinyredux", ignore_errors=True)  # else modules that have moved go along
        for target, source in self.get_output_mapping().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_source_files(self) -> list[str]:
        """Returns the files of DATA, which a source distribution takes along."""
        found = [path for pattern in DATA for path in sorted(Path().glob(pattern)) if path.is_file()]
        return [path.as_posix() for path in found if LEFT_OUT.isdisjoint(path.parts)]

    def get_output_mapping(self) -> dict[str, str]:
        """Returns {built file: its source}."""
        home = Path(self.build_lib) / "tinyredux" / "_data"
        return {str(home / source): source for source in self.get_source_files()}

    def get_outputs(self) -> list[str]:
        """Returns the built files."""
        return list(self.get_output_mapping())


build.sub_commands.insert(0, ("build_data", None))
setup(cmdclass={"build_data": BuildData})
