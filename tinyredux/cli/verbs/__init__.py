"""The verbs of the command line, one function each, thin faces of public Python functions."""

from tinyredux.cli.verbs import course, device, network, training
from tinyredux.cli.verbs.base import Verb

MODULES = (device, network, training, course)
VERBS = {name: found for module in MODULES for name, found in vars(module).items() if isinstance(found, Verb)}
