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
from typing import IO, NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "tinyredux.stamp"
BUSY = VENV / "tinyredux.busy"  # there while packages are written: what an interruption leaves looks installed and may be half
EXTRAS = "lab,book,test"
OPTIONAL_EXTRAS = "search,tflite,onnx,quantisers,browser"  # not every machine has wheels of these; tests that need them skip
HOST_COMPILER = ("gcc", "libc6-dev")
ARM_COMPILER = ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi")
EMULATOR = ("qemu-system-arm",)
BROWSER = ("chromium",)  # any that tests/course/test_pages.py knows; too large to install for those who only read
ON_MACOS = {
    "gcc": "xcode-select --install",
    "libc6-dev": "xcode-select --install",
    "gcc-arm-none-eabi": "brew install --cask gcc-arm-embedded",
    "libnewlib-arm-none-eabi": "brew install --cask gcc-arm-embedded",
    "qemu-system-arm": "brew install qemu",
    "chromium": "brew install --cask chromium",
}
NEEDED_BYTES = 3_000_000_000  # while there is no environment yet


def quit_with(sentence: str) -> NoReturn:
    """Ends the program: something is missing that it may not install."""
    print(sentence, file=sys.stderr)
    sys.exit(3)


def run(*command: str, quiet: bool = False) -> bool:
    """Runs a command, its output on standard error or nowhere. Returns whether it worked."""
    out = subprocess.DEVNULL if quiet else sys.stderr
    try:
        return subprocess.run(command, cwd=ROOT, stdout=out, stderr=out, stdin=subprocess.DEVNULL).returncode == 0
    except OSError:  # not there, or not a program
        return False


def may_install() -> list[str] | None:
    """Returns the words that make a command the administrator's, or None where that is not to be had without a password."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return []
    return ["sudo", "-n"] if run("sudo", "-n", "true", quiet=True) else None


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
    """Returns what a person would type, on Debian and Ubuntu, on macOS, or in words."""
    if sys.platform == "darwin":
        return " && ".join(dict.fromkeys(ON_MACOS.get(name, f"brew install {name}") for name in packages))
    if shutil.which("apt-get"):
        return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"
    return f"your package manager, for what Debian calls {' '.join(packages)}"


def look_around() -> None:
    """Ends with a sentence where nothing could work: another system, a checkout that cannot be written, a full disk."""
    if sys.platform == "win32":
        quit_with(
            "tinyredux runs on Linux; on Windows, run: wsl --install, and in its Ubuntu: make setup in a clone of this folder"
        )
    if ":" in str(ROOT):
        quit_with(f"a virtual environment cannot lie in a path with a colon; move the checkout: {ROOT}")
    if not os.access(ROOT, os.W_OK):
        quit_with(f"{ROOT} cannot be written to; copy the checkout to a folder of yours, then: make setup")
    free = shutil.disk_usage(ROOT).free
    if not STAMP.is_file() and free < NEEDED_BYTES:
        quit_with(f"{ROOT} has {free / 1e9:.1f} GB free, expected {NEEDED_BYTES / 1e9:.0f}; make room, then: make setup")


def wait_for_others() -> IO[str]:
    """Returns a file that keeps a second set-up of this checkout waiting as long as it is open."""
    import fcntl

    held = open(__file__)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another set-up is at work in this checkout; waiting for it", file=sys.stderr)
        fcntl.flock(held, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
    return held


def make_environment() -> None:
    """Makes .venv when it is not there, its Python is gone, or a set-up was interrupted while it wrote there."""
    if not BUSY.exists() and run(str(PYTHON), "-c", "import pip", quiet=True):
        return
    python = getattr(sys, "_base_executable", sys.executable)  # not the one that is about to be removed
    package = f"python3.{sys.version_info.minor}-venv"
    if not run(python, "-c", "import ensurepip, venv", quiet=True) and not install((package,)):
        quit_with(
            f"{python} has no module for virtual environments; install {package}: {how_to_install((package,))}; then: make setup"
        )
    if not run(python, "-m", "venv", "--clear", str(VENV)):
        quit_with(f"Python could not make {VENV.name} (its words are above); remove that folder, then: make setup")


def install_packages() -> None:
    """Installs the pinned packages when pyproject.toml, constraints.txt, Python or the place of the checkout changed."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    mark = hashlib.sha256(b"".join([*parts, sys.version.encode(), str(ROOT).encode()])).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == mark:
        return
    print("installing Python packages into .venv: about 2 GB, some minutes", file=sys.stderr)
    BUSY.write_text("a set-up is writing here, or was interrupted")
    pip = (str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", "constraints.txt", "-e")
    done = run(*pip, f".[{EXTRAS},{OPTIONAL_EXTRAS}]")
    if not done:
        print("once more without the optional packages", file=sys.stderr)
        done = run(*pip, f".[{EXTRAS}]")
    BUSY.unlink()  # pip has ended by itself: a failure of its own leaves what was there
    if not done:
        quit_with(
            "pip could not install the packages (its words are above): check the network, your index, and the room on the disk; "
            "then: make setup"
        )
    if not any(map(shutil.which, (*BROWSER, "chromium-browser", "google-chrome"))):
        print(f"tests of the pages skip without Chromium: {how_to_install(BROWSER)}", file=sys.stderr)
    STAMP.write_text(mark)


def install_compilers() -> None:
    """Installs the compilers where they are missing; QEMU too, but that one may be missing."""
    arm = shutil.which("arm-none-eabi-gcc")
    newlib = arm and "/" in subprocess.run([arm, "-print-file-name=nano.specs"], capture_output=True, text=True).stdout
    host = any(
        run(name, "--version", quiet=True) for name in ("gcc", "cc", "clang")
    )  # macOS has a cc that only asks for the real one
    missing = (() if host else HOST_COMPILER) + (() if newlib else ARM_COMPILER)
    if missing and not install(missing):
        quit_with(f"a compiler is missing and may not be installed from here; run: {how_to_install(missing)}")
    if shutil.which("qemu-system-arm") is None and not install(EMULATOR):
        print(f"going on without QEMU (a second opinion only): {how_to_install(EMULATOR)}", file=sys.stderr)


def main() -> int:
    """Makes everything ready. Returns the exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this runs before anything has asked for a version)
        quit_with(f"tinyredux needs Python 3.11 or newer, this is {sys.version.split()[0]}; name one: make PYTHON=python3.11")
    try:
        look_around()
        with wait_for_others():
            make_environment()
            install_packages()
            install_compilers()
            if not run(str(PYTHON), "tools/pio_offline.py"):
                quit_with(
                    "PlatformIO is not ready (its words are above); all but uploading works. Remove .pio-core, then: make setup"
                )
    except KeyboardInterrupt:
        print("interrupted; make setup goes on from here", file=sys.stderr)
        return 130
    except OSError as failure:
        quit_with(
            f"the set-up could not go on ({failure}); is the disk full, or a file of .venv another user's? Then: make setup"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
