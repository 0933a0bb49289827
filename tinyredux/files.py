"""Files that users give and that verbs write: read with limits, held against a dataclass, written whole or not at all.

Whatever is wrong with a file ends in a ValueError that says which file and field, what was found, what was expected.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import numbers
import os
import re
import tempfile
import threading
import types
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

LIBRARY = Path(__file__).resolve().parent
# What the library reads beside its Python: platformio.ini, firmware/, data/records/, book/labs/. A checkout has them beside the
# package. A wheel has the same folders inside the package: setup.py copies them there, and nothing is ever written to them.
IS_CHECKOUT = not (LIBRARY / "_data").is_dir()
ROOT = LIBRARY.parent if IS_CHECKOUT else LIBRARY / "_data"
T = TypeVar("T")
MOST_JSON_BYTES = 1 << 26  # the largest record of ours has half a MiB
WORDS = {int: "a whole number", float: "a number", str: "printable text", bool: "true or false"}


def how_to_install(extra: str) -> str:
    """Returns the command that installs the packages of an extra of ours; a checkout pins their versions."""
    return f"pip install -c constraints.txt -e '.[{extra}]'" if IS_CHECKOUT else f"pip install 'tinyredux[{extra}]'"


SETUP = "make setup" if IS_CHECKOUT else how_to_install("lab")


def home() -> Path:
    """Returns the user's home folder. Raises ValueError where there is none."""
    folder = os.path.expanduser("~")
    if not os.path.isabs(folder):
        raise ValueError(f"the home folder is {folder!r}, expected an absolute path; set HOME, or TINYREDUX_CACHE for the cache")
    return Path(folder)


def cache_folder() -> Path:
    """Returns the folder for builds, downloads and checkpoints: TINYREDUX_CACHE, or tinyredux in XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("TINYREDUX_CACHE"):
        return Path(os.path.expanduser(named)).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "tinyredux"


NETWORK_FILES = (".tflite", ".onnx")  # endings of files that hold an int8 network


def is_network_file(name: str) -> bool:
    """Returns whether a network is named by a file that holds its int8 graph, path/to/model.tflite or .onnx."""
    return name.endswith(NETWORK_FILES)


def short_name(name: str) -> str:
    """Returns a network's name without folder and file: `factory` of path/to/file.py:factory, `model` of path/to/model.tflite."""
    return Path(name).stem if is_network_file(name) else name.rpartition(":")[2]


def check_is_file(path: Path, what: str, such_as: str = "", most: int = 1 << 40) -> None:
    """Raises ValueError for what is no regular file, as a pipe or a device may never end, and for one above `most` bytes."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is a pipe or a device" if path.exists() else "does not exist"
        raise ValueError(f"{what} {path} {found}; expected a file{such_as and f', {such_as}'}")
    require(path.stat().st_size <= most, f"{what} {path} has {path.stat().st_size:,} bytes, expected at most {most:,}")


# JSON ------------------------------------------------------------------------------------------------------------------


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Returns the object that a JSON file holds; `what` names its kind in errors. Raises ValueError for anything else."""
    check_is_file(path, what, most=MOST_JSON_BYTES)
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_refused_number)
    except UnicodeDecodeError as wrong:
        raise ValueError(f"{what} {path} is no text in UTF-8 (byte {wrong.start}); save it as UTF-8") from None
    except RecursionError:
        raise ValueError(f"{what} {path} is nested too deeply, expected a few levels") from None
    except ValueError as wrong:
        raise ValueError(f"{what} {path} is no JSON: {wrong if text.strip() else 'the file is empty'}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{what} {path} holds {_shown(content)}, expected an object {{...}}")
    return content


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    for key, count in Counter(key for key, _ in pairs).items():
        require(count == 1, f"the name {key!r} is there twice")
    return dict(pairs)


def _refused_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def checked(kind: type[T], content: Any, where: str, advice: str = "") -> T:
    """Returns what JSON says as an object of a dataclass, or of dict[str, ...] of one; no type is changed into another.

    Whole numbers may be hexadecimal text, "0x08000000". Raises ValueError that names `where`, the field and `advice`.
    """
    try:
        found: T = _as(kind, content, "")
    except ValueError as wrong:
        raise ValueError(f"{where}: {wrong}{advice and f'; {advice}'}") from None
    return found


def _as(kind: Any, value: Any, place: str) -> Any:
    """Returns `value` as `kind`; `place` is its path in the file."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is types.UnionType:  # X | None
        return None if value is None else _as(type(value) if type(value) in parts else parts[0], value, place)
    if is_dataclass(kind) and isinstance(value, dict):
        return _as_dataclass(kind, value, place)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_as(parts[0], one, f"{place}[{i}]") for i, one in enumerate(value))
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _as(parts[1], one, f"{place}.{key}".lstrip(".")) for key, one in value.items()}
    if kind is int and isinstance(value, str) and re.fullmatch("0[xX][0-9a-fA-F]{1,16}", value):
        return int(value, 16)
    if kind in WORDS and _is_plain(kind, value):
        return value
    wanted = WORDS.get(kind, "a list [...]" if origin in (list, tuple) else "an object {...}")
    raise ValueError(f"{f'field {place}' if place else 'the content'} is {_shown(value)}, expected {wanted}")


def _is_plain(kind: Any, value: Any) -> bool:
    """Returns whether a value is of a plain type. True and false are no numbers, whole numbers are numbers, infinity is none."""
    if type(value) not in ((int, float) if kind is float else (kind,)):
        return False
    return bool(value.isprintable()) if kind is str else kind is not float or -1e308 < value < 1e308


def _as_dataclass(kind: Any, value: dict[str, Any], place: str) -> Any:
    hints, inside = _hints(kind), f"{place}." if place else ""
    known = {field.metadata.get("name", field.name): field for field in fields(kind)}
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"field {inside}{name} is unknown; {advice}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"field {inside}{name} is missing")
    found = {known[name].name: _as(hints[known[name].name], one, f"{inside}{name}") for name, one in value.items()}
    try:
        return kind(**found)
    except ValueError as wrong:
        raise ValueError(f"field {place}: {wrong}" if place else str(wrong)) from None


def check_types(settings: Any) -> None:
    """Raises ValueError for the first field of a dataclass whose value is of another type than it says; truths are no numbers."""
    for name, hint in _hints(settings.__class__).items():
        kinds = get_args(hint) if get_origin(hint) is types.UnionType else (get_origin(hint) or hint,)
        also = {int: numbers.Integral, float: numbers.Real}
        value, allowed = getattr(settings, name), tuple(also.get(kind, kind) for kind in kinds)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{name} is {value!r}, expected {wanted}")


def require(holds: object, otherwise: str) -> None:
    """Raises ValueError with the sentence `otherwise` unless the first argument is true."""
    if not holds:
        raise ValueError(otherwise)


def first_line(wrong: BaseException) -> str:
    """Returns the first line of what an exception says, or its type's name where it says nothing."""
    return str(wrong).strip().partition("\n")[0] or type(wrong).__name__


def expect(kind: type | types.UnionType, value: object, what: str, such_as: str) -> None:
    """Raises ValueError where what a function was given is of another type, with an example of the right one."""
    if not isinstance(value, kind):
        shown = repr(value) if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"
        raise ValueError(f"{what} is {shown[:60]}, expected {getattr(kind, '__name__', kind)}, {such_as}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _shown(value: Any) -> str:
    """Returns a value as JSON has it, cut short."""
    text = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_recorded(path: Path) -> bytes:
    """Returns the bytes of a file of weights. Raises ValueError where the record beside it, if any, states another sha256."""
    check_is_file(path, "weights")
    content, record = path.read_bytes(), path.with_suffix(".json")
    stated = read_json(record, "record of weights").get("sha256") if record.is_file() else None
    if stated is not None and (there := hashlib.sha256(content).hexdigest()) != stated:
        raise ValueError(f"{path} is damaged: its sha256 is {there}, its record says {stated}; remove both and make them again")
    return content


# Writing ---------------------------------------------------------------------------------------------------------------


def partial_name(path: Path) -> Path:
    """Returns a name beside `path` that no other process or thread has, for what becomes `path` when it is whole."""
    return path.with_name(f".{path.name[:200]}.{os.getpid()}.{threading.get_ident()}")


def write_whole(path: Path, content: bytes | str) -> Path:
    """Writes a file, folders made as needed, so that no reader ever meets a part of it, and returns its path.

    What lies there with the same bytes is left alone. Raises OSError that names the file, which is then as it was before.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return path
    beside = partial_name(path)
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as wrong:
        beside.unlink(missing_ok=True)
        raise OSError(wrong.errno, f"cannot be written: {wrong.strerror}", str(path)) from None
    return path


def check_output(folder: Path, name: str = "") -> None:
    """Raises ValueError where nothing can be written into `folder`, which need not be there yet, or no file have that name."""
    here = folder
    try:
        with suppress(FileNotFoundError):
            (folder / name).lstat()  # a name that no file can have is refused
        while not here.exists() and not here.is_symlink():
            here = here.parent
        with tempfile.TemporaryFile(dir=here):
            pass
    except (OSError, ValueError) as wrong:
        said = getattr(wrong, "strerror", None) or str(wrong)
        raise ValueError(f"nothing can be written into {folder}: {here}: {said}; choose another folder") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, made if missing; other processes wait."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
