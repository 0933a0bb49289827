"""The verbs of the command line, one function each, thin faces of public Python functions."""

from __future__ import annotations

from tinyredux.cli.verbs import course, device, exploring, network, training
from tinyredux.cli.verbs.base import Verb

VERBS: dict[str, Verb] = {
    name: found
    for module in (device, network, training, exploring, course)
    for name, found in vars(module).items()
    if isinstance(found, Verb)
}
