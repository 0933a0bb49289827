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
from pathlib import Path

from tinyredux.codegen.calls import Weights
from tinyredux.codegen.parts import statements
from tinyredux.kernels import FastSteps, Form, code_bytes

FILE = Path(__file__).with_name("code_sizes.json")


def flash_bytes(fast: FastSteps, core: str) -> int:
    """Returns the predicted bytes of flash of a firmware: weights, code and runtime, every function once."""
    table, weights, forms = json.loads(FILE.read_text())["cores"][core], Weights(fast), fast.form_of_operator
    calls = [table["calls"].get(family(forms.get(op.name)), table["calls"]["reference"]) for op in fast.program.graph.ops]
    kernels = {tuple(part) for name in kernels_called(fast, weights) for part in table["functions"].get(name, [])}
    return int(table["runtime"] + sum(calls) + len(weights.blob.data) + program_bytes(forms) + sum(size for _, size in kernels))


def family(form: Form | None) -> str:
    """Returns the name of a form without its numbers, "reference" for none: what the size of its call depends on."""
    return "reference" if form is None else re.sub(r"\d.*", "", form.name)


def program_bytes(forms: Mapping[str, Form]) -> int:
    """Returns the bytes of the functions of all forms, each once."""
    functions = {function.name: function for form in forms.values() for function in form.functions}
    later = sum(form.later.code_bytes for form in forms.values() if form.later)
    return sum(code_bytes(function) for function in functions.values()) + later


def kernels_called(fast: FastSteps, weights: Weights) -> set[str]:
    """Returns the names of the functions that the generated C calls, generated ones aside."""
    functions = {function.name for form in fast.forms.values() for function in form.functions}
    return set(re.findall(r"\b(tr_\w+)\(", "\n".join(map("\n".join, statements(fast, weights, {}))))) - functions
