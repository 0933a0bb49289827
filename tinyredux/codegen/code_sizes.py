"""The flash of a network computed layer by layer, predicted before anything is built.

Arrays lie as `blob` packs them, and the code of every function is known to the byte. What is left is C: code_sizes.json has the
bytes of every kernel function with all that it calls, of the runtime, and of an operator's call and parameters on average, by the
family of its form. It was read from built firmware by tools/fit_code_sizes.py, with the compiler that it names; another one
differs a little.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tinyredux.codegen.calls import Weights
from tinyredux.codegen.parts import statements
from tinyredux.kernels import FastSteps, Form, code_bytes

FILE = Path(__file__).with_name("code_sizes.json")


def flash_bytes(fast: FastSteps, core: str) -> int:
    """Returns the predicted bytes of flash of a firmware: weights, code and runtime."""
    table, weights = _table()["cores"][core], Weights(fast)
    forms = fast.form_of_operator
    calls = sum(table["calls"].get(family(forms.get(op.name)), table["calls"]["reference"]) for op in fast.program.graph.ops)
    return int(table["runtime"] + calls + len(weights.blob.data) + program_bytes(forms) + kernel_bytes(fast, weights, core))


def family(form: Form | None) -> str:
    """Returns the name of a form without its numbers, "reference" for none: what the size of its call depends on."""
    return "reference" if form is None else re.sub(r"\d.*", "", form.name)


def program_bytes(forms: Mapping[str, Form]) -> int:
    """Returns the bytes of the functions of all forms, each once."""
    functions = {function.name: function for form in forms.values() for function in form.functions}
    later = sum(form.later.code_bytes for form in forms.values() if form.later)
    return sum(code_bytes(function) for function in functions.values()) + later


def kernel_bytes(fast: FastSteps, weights: Weights, core: str) -> int:
    """Returns the bytes of the C kernels that a network calls, with what these call, each once."""
    functions = _table()["cores"][core]["functions"]
    parts = {(name, size) for called in kernels_called(fast, weights) for name, size in functions.get(called, [])}
    return sum(size for _, size in parts)


def kernels_called(fast: FastSteps, weights: Weights) -> set[str]:
    """Returns the names of the functions that the generated C calls, generated ones aside."""
    calls = "\n".join(line for lines in statements(fast, weights, {}) for line in lines)
    functions = {function.name for form in fast.forms.values() for function in form.functions}
    return set(re.findall(r"\b(tr_\w+)\(", calls)) - functions


@cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found
