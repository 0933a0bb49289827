"""Makes the checkout ready: virtual environment with pinned packages, compilers, PlatformIO. Needs only Python itself.

Repeated, it looks at stamps and returns at once. Where it may not install, it says in one sentence what to run (exit 3).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "tinyredux.stamp"
EXTRAS = "lab,book,test"
OPTIONAL_EXTRAS = "search,tflite"  # not every machine has wheels of these; tests that need them skip
HOST_COMPILER = ("gcc", "libc6-dev")
ARM_COMPILER = ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi")
EMULATOR = ("qemu-system-arm",)


def quit_with(sentence: str) -> None:
    """Ends the program: something is missing that it may not install."""
    print(sentence, file=sys.stderr)
    sys.exit(3)


def run(*command: str) -> bool:
    """Runs a command, its output on standard error. Returns whether it worked."""
    return subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode == 0


def may_install() -> list[str] | None:
    """Returns the words that make a command the administrator's, or None where that is not to be had without a password."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], **quiet).returncode == 0:
        return ["sudo", "-n"]
    return None


def install(packages: tuple[str, ...]) -> bool:
    """Installs Debian packages where allowed; fresh package lists only when the first try fails. Returns whether it worked."""
    become = may_install()
    if become is None:
        return False
    print(f"installing {', '.join(packages)}", file=sys.stderr)
    command = [*become, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    wanted = ["install", "-y", "-qq", "--no-install-recommends", *packages]
    return run(*command, *wanted) or (run(*command, "update", "-qq") and run(*command, *wanted))


def how_to_install(packages: tuple[str, ...]) -> str:
    """Returns the command that a person would type."""
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def make_environment() -> None:
    """Makes .venv when it is not there or its Python is gone."""
    if PYTHON.exists() and run(str(PYTHON), "-c", "import pip"):
        return
    package = f"python3.{sys.version_info.minor}-venv"
    command = (sys.executable, "-m", "venv", "--clear", str(VENV))
    has_ensurepip = run(sys.executable, "-c", "import ensurepip")
    if not (has_ensurepip or install((package,))) or not run(*command):
        quit_with(f"Python cannot make a virtual environment here; run: {how_to_install((package,))}")


def install_packages() -> None:
    """Installs the pinned packages when pyproject.toml, constraints.txt, Python or the place of the checkout changed."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    mark = hashlib.sha256(b"".join([*parts, sys.version.encode(), str(ROOT).encode()])).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == mark:
        return
    print("installing Python packages into .venv: about 2 GB, some minutes", file=sys.stderr)
    pip = (str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", "constraints.txt", "-e")
    if not run(*pip, f".[{EXTRAS},{OPTIONAL_EXTRAS}]"):
        print("once more without the optional packages", file=sys.stderr)
        if not run(*pip, f".[{EXTRAS}]"):
            quit_with(
                "pip could not install the packages (its words are above); check the network or your index, then: make setup"
            )
    STAMP.write_text(mark)


def install_compilers() -> None:
    """Installs the compilers where they are missing; QEMU too, but that one may be missing."""
    arm = shutil.which("arm-none-eabi-gcc")
    newlib = arm and "/" in subprocess.run([arm, "-print-file-name=nano.specs"], capture_output=True, text=True).stdout
    host = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    missing = (() if host else HOST_COMPILER) + (() if newlib else ARM_COMPILER)
    if missing and not install(missing):
        quit_with(f"a compiler is missing and may not be installed from here; run: {how_to_install(missing)}")
    if shutil.which("qemu-system-arm") is None and not install(EMULATOR):
        print(f"going on without QEMU (a second opinion only): {how_to_install(EMULATOR)}", file=sys.stderr)


def main() -> int:
    """Makes everything ready. Returns the exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this runs before anything has asked for a version)
        quit_with(f"tinyredux needs Python 3.11 or newer, this is {sys.version.split()[0]}; name one: make PYTHON=python3.11")
    make_environment()
    install_packages()
    install_compilers()
    return 0 if run(str(PYTHON), "tools/pio_offline.py") else 1


if __name__ == "__main__":
    sys.exit(main())
