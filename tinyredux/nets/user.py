"""Networks that a user's Python file makes, `path/to/file.py:factory`: how its code runs, and what its files are called."""

import contextlib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from tinyredux import datasets
from tinyredux.files import first_line, is_network_file, require, short_name
from tinyredux.graph import check_input_shape

WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights"


def own_name(name: str) -> str:
    """Returns the name of a network's files: a user's bears a mark of its file, so it is never taken for another of that name."""
    file = name if is_network_file(name) else name.rpartition(":")[0]
    return f"{short_name(name)}-{hashlib.sha256(os.fsencode(Path(file).resolve())).hexdigest()[:8]}" if file else name


def weights_file(name: str, data: str, method: str = "") -> Path | None:
    """Returns the weights of a network trained on `data`, for a method: committed ones first, then the user's cache."""
    file = f"{own_name(name)}{method and f'.{method}'}.{data}.safetensors"
    places = (WEIGHTS_FOLDER / file, datasets.cache_folder() / "weights" / file)
    return next((path for path in places if path.is_file()), None)


def made_by(file: Path, factory: str) -> nn.Module:
    """Returns what the function `factory` of a Python file returns; the file may import its neighbours."""
    require(file.is_file(), f"no file {file}; expected a Python file with a function {factory}()")
    name = f"tinyredux_user_{own_name(f'{file}:{file.stem}')}"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code  # where dataclasses look their types up
    with _theirs(file, factory):
        spec.loader.exec_module(code)
        make = getattr(code, factory, None)  # a module may make its functions when they are asked for
    if not callable(make):
        functions = [key for key, value in vars(code).items() if callable(value) and getattr(value, "__module__", "") == name]
        raise ValueError(f"{file} has no function {factory!r}; it has {', '.join(functions) or 'none'}")
    with _theirs(file, factory):
        module = make()
        shape = getattr(module, "input_shape", None)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{file}:{factory} returned {type(module).__name__}, expected a torch.nn.Module")
    check_input_shape(shape, f"{file}:{factory}")
    return getattr(module, "_orig_mod", module)  # what torch.compile was given: compiling it would take a minute


@contextlib.contextmanager
def _theirs(file: Path, factory: str) -> Iterator[None]:
    """Runs a user's code: what it raises becomes a ValueError, and what it sets for the whole process is as before."""
    folder, path, grown = file.resolve().parent, list(sys.path), torch.is_grad_enabled()
    kind, device = torch.get_default_dtype(), torch.get_default_device()
    users = {Path(str(code.__file__)).parent for name, code in list(sys.modules.items()) if name.startswith("tinyredux_user_")}
    for name, code in list(sys.modules.items()):  # a neighbour of another file, of a name that this one's neighbour has
        beside = Path(getattr(code, "__file__", None) or "").parent
        if beside in users - {folder} and (folder / f"{name}.py").is_file():
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        with contextlib.chdir("."):
            yield
    except (Exception, SystemExit, GeneratorExit) as failure:
        advice = "; it must run without arguments" if isinstance(failure, TypeError) else ""
        raise ValueError(f"{file}:{factory} raised {type(failure).__name__}: {first_line(failure)}{advice}") from failure
    finally:
        sys.path[:] = path
        torch.set_grad_enabled(grown)
        torch.set_default_dtype(kind)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
