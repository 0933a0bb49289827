"""Prepares PlatformIO for a place without its registry: SCons, the two platforms, a core folder inside the checkout.

Writes .pio-core/ and platformio_local.ini (both ignored by git), so that `pio run`, `pio test` and `-t upload` work as
they are. Does nothing where the registry answers; --force prepares the pieces all the same, --remove takes them away.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import shutil
import sys
import threading
import urllib.request
from importlib.metadata import version as installed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / ".pio-core"
LOCAL_INI = ROOT / "platformio_local.ini"
MARK = "; written by tools/pio_offline.py: PlatformIO's registry could not be reached"
PATIENCE_S = 3.0


def registry_answers() -> bool:
    """Returns whether PlatformIO's registry names a package within PATIENCE_S seconds, name look-up included."""
    from platformio import __registry_mirror_hosts__

    address = f"https://api.{__registry_mirror_hosts__[0]}/v3/packages/platformio/tool/tool-scons"
    answers = []

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError, KeyError), urllib.request.urlopen(address, timeout=PATIENCE_S) as reply:
            answers.append(json.load(reply)["name"])

    asking = threading.Thread(target=ask, daemon=True)  # a look-up of a name knows no time limit of its own
    asking.start()
    asking.join(PATIENCE_S)
    return answers == ["tool-scons"]


def write_scons() -> None:
    """Makes the tool-scons package that PlatformIO asks for out of the installed SCons."""
    from platformio.dependencies import get_core_dependencies

    wanted = get_core_dependencies()["tool-scons"].lstrip("~^=")
    folder = CORE / "packages" / "tool-scons"
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"owner": "platformio", "id": None, "name": "tool-scons", "requirements": None, "uri": None}
    (folder / "scons.py").write_text("from SCons.Script.Main import main\n\nmain()\n")
    (folder / "package.json").write_text(json.dumps({"name": "tool-scons", "version": wanted}))
    (folder / ".piopm").write_text(json.dumps({"type": "tool", "name": "tool-scons", "version": wanted, "spec": spec}))


def write_platforms() -> None:
    """Copies the stand-in platforms and gives ststm32 the built-in boards."""
    sys.path.insert(0, str(ROOT))
    from tinyredux.boards import BOARD_FOLDER, find_board
    from tinyredux.device.platformio import manifest

    for name in ("ststm32", "native"):
        shutil.copytree(ROOT / "tools" / "platforms" / name, CORE / "platforms" / name, dirs_exist_ok=True)
    boards = CORE / "platforms" / "ststm32" / "boards"
    boards.mkdir(exist_ok=True)
    for path in BOARD_FOLDER.rglob("*.json"):
        (boards / path.name).write_text(json.dumps(manifest(find_board(str(path))), indent=2))


def write_settings() -> None:
    """Points this checkout at its core folder, and keeps PlatformIO from telling or asking the network anything."""
    settings = {"enable_telemetry": False, "check_platformio_interval": 9999}
    (CORE / "appstate.json").write_text(json.dumps({"settings": settings}))
    LOCAL_INI.write_text(f"{MARK}\n[platformio]\ncore_dir = {CORE.name}\n")


def fingerprint() -> str:
    """Returns a hash over all that the offline pieces are made from."""
    data = [*(ROOT / "tinyredux" / "board_files").rglob("*.json"), ROOT / "tinyredux" / "device" / "platformio.py"]
    sources = [*(ROOT / "tools").rglob("*"), *data]
    parts = [path.read_bytes() for path in sorted(sources) if path.suffix in (".py", ".json")]
    return hashlib.sha256(b"".join([*parts, installed("platformio").encode(), installed("scons").encode()])).hexdigest()


def ready() -> bool:
    """Returns whether the pieces are there and of today."""
    stamp = CORE / "stamp"
    return LOCAL_INI.is_file() and stamp.is_file() and stamp.read_text() == fingerprint()


def ours() -> bool:
    """Returns whether platformio_local.ini is absent or was written by this script."""
    return not LOCAL_INI.is_file() or LOCAL_INI.read_text().startswith(MARK)


def main() -> int:
    """Prepares or removes the offline pieces. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="prepare the pieces even where the registry answers")
    parser.add_argument("--remove", action="store_true", help="take the pieces away again")
    wanted = parser.parse_args()
    if not ours():
        print(f"{LOCAL_INI.name} is your own; left alone, and so is PlatformIO", file=sys.stderr)
        return 0
    if importlib.util.find_spec("platformio") is None or importlib.util.find_spec("SCons") is None:
        print("this Python has no PlatformIO with SCons; run: make setup, which installs them into .venv", file=sys.stderr)
        return 3
    if ready() and not wanted.remove:
        return 0
    if wanted.remove or (not wanted.force and registry_answers()):
        shutil.rmtree(CORE, ignore_errors=True)
        LOCAL_INI.unlink(missing_ok=True)
        print("PlatformIO uses its registry")
        return 0
    write_scons()
    write_platforms()
    write_settings()
    (CORE / "stamp").write_text(fingerprint())
    print(f"PlatformIO {installed('platformio')} works offline in this checkout ({CORE.name})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
