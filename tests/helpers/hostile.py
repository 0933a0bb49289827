"""Hostile submissions by the dozen: each a cell that must not earn a mark, made of a way to cheat and of what it is tried on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

MODULES = ("course.exercises", "course.teaching", "course.judge", "memory", "memory.layerwise", "_data")
IMPORTS = {
    "import_module": "import importlib\nm = importlib.import_module({0!r})",
    "dunder": "m = __import__({0!r}, fromlist=['x'])",
    "runpy": "import runpy, types\nm = types.SimpleNamespace(**runpy.run_module({0!r}))",
    "no_hooks": "sys.meta_path[:] = [f for f in sys.meta_path if isinstance(f, type)]\nsys.modules.pop('tinyredux', None)\n"
    "import importlib\nm = importlib.import_module({0!r})",
    "by_hand": "import importlib.machinery as im, importlib.util as iu\nspec = im.PathFinder.find_spec('tinyredux', sys.path)\n"
    "m = iu.module_from_spec(spec)\nspec.loader.exec_module(m)",
}
TAKE = """
EX = getattr(m, 'EXERCISES', {})
place = EX['lab2.place'].expected if 'lab2.place' in EX else getattr(m, 'place', None) or getattr(m, 'first_fit', None)
by_hand = EX['lab2.by_hand'].expected() if 'lab2.by_hand' in EX else getattr(m, 'BRANCH_SIZES', None)
"""

BASES = ("object", "int", "float", "str", "bytes", "list", "tuple", "dict", "np.ndarray", "np.int64", "Exception", "set")
LIE = """import numpy as np
always = lambda *_, **__: True
special = 'eq ne lt le gt ge bool contains'
body = {{f'__{{name}}__': always for name in special.split()}} | {{'__hash__': lambda self: 0}}
body |= {{'__len__': lambda self: 6, '__class__': property(lambda self: dict), 'tolist': lambda self: dict.fromkeys('abcd', 0)}}
Lie = type('dict', ({base},), body | {{'__module__': {module!r}, '__new__': lambda cls, *_: {base}.__new__(cls, *{new})}})
lie = Lie()
"""
NEW = {"np.ndarray": "((6,),)"}
GIVEN = {
    "itself": "place = lambda *_: lie\nby_hand = lie",
    "inside": "place = lambda sizes, _: dict.fromkeys(sizes, lie)\nby_hand = dict.fromkeys(exercises.BRANCH_SIZES, lie)",
}

PATHS = (
    "NEIGHBOUR", "Path(f'/proc/1/root{NEIGHBOUR}')", "Path(f'/proc/{os.getppid()}/cwd') / NEIGHBOUR.name",
    "next(iter(Path('/').rglob('*neighbour*')), None)", "next(iter(Path('/').rglob('exercises.py')), None)",
    "Path(f'/proc/self/fd/0')",
)  # fmt: skip
READERS = {
    "open": "text = open({0}).read()",
    "os": "text = os.read(os.open({0}, os.O_RDONLY | os.O_NONBLOCK), 10**6).decode()",
    "libc": "import ctypes\nc = ctypes.CDLL(None)\nb = ctypes.create_string_buffer(10**6)\n"
    "n = c.read(c.open(str({0}).encode(), 2048), b, 10**6)\ntext = b.raw[:max(n, 0)].decode()",
    "cat": "import subprocess\ntext = subprocess.run(['timeout', '1', 'cat', str({0})], capture_output=True, text=True).stdout",
}
USE = """
import json
exec(''.join(json.loads(text)['cells'][0]['source']) if text[:1] == '{' else text.partition('_ALL = (')[0])
"""

PATCHES = {
    "json.dumps": "lambda *_, **__: '{\"passed\": true, \"value\": {\"a\": 0}}'",
    "json.loads": "lambda *_, **__: {'id': '0', 'name': 'place', 'seconds': 1}",
    "ast.literal_eval": "lambda *_: ({}, {})",
    "os.write": "lambda fd, data: len(data)",
    "os._exit": "lambda *_: None",
    "signal.setitimer": "lambda *_: None",
    "signal.signal": "lambda *_: None",
    "builtins.callable": "lambda *_: True",
    "builtins.isinstance": "lambda *_: True",
    "builtins.type": "lambda *_: dict",
    "builtins.len": "lambda *_: 6",
    "builtins.repr": "lambda *_: '{}'",
    "builtins.all": "lambda *_: True",
    "IPython.core.interactiveshell.InteractiveShell.run_cell": "lambda *_, **__: True",
    "sys.modules['__main__'].plain": "lambda value: dict.fromkeys(['input', 'a', 'b', 'c', 'd', 'out'], 0)",
    "sys.modules['__main__']._answer": "lambda *_: {'passed': True, 'value': {}, 'points': 3}",
    "sys.modules['__main__'].missing": "lambda name: True",
}  # fmt: skip
TRACES = {
    "settrace": "def spy(frame, *_):\n    seen.append(frame)\n    return spy\nsys.settrace(spy)",
    "setprofile": "sys.setprofile(lambda frame, *_: seen.append(frame))",
    "audit": "sys.addaudithook(lambda name, args: seen.append(args))",
    "frames": "seen += sys._current_frames().values()",
    "stack": "import inspect\nseen += [each.frame for each in inspect.stack()]",
    "objects": "import gc\nseen += gc.get_objects()",
    "referrers": "import gc\nseen += gc.get_referrers(check)",
    "modules": "seen += sys.modules.values()",
}  # fmt: skip
SPY = """
def answer():
    for each in list(seen):
        for space in (getattr(each, 'f_globals', {}), getattr(each, 'f_locals', {}), getattr(each, '__dict__', {}), each):
            for name in ('expected', 'first_fit', 'first_fit_by_size', 'EXERCISES', '_judge_place'):
                if isinstance(space, dict) and name in space:
                    return space[name]
place = lambda sizes, spans: answer()(sizes, spans)
by_hand = answer()
"""
PICKLES = (
    "(type('P', (), {'__reduce__': lambda self: (dict, ([('a', 0)],))})())", "pickle.dumps({'a': 0})", "iter({'a': 0}.items())",
    "types.MappingProxyType(exercises.BRANCH_SIZES)", "collections.UserDict(exercises.BRANCH_SIZES)", "lambda: None",
    "np.array({'a': 0}, object)", "np.rec.array([(0,)], dtype=[('a', int)])", "memoryview(b'0')", "(each for each in 'abc')",
    "...", "collections.Counter(input=0, a=0, b=0, c=0, d=0, out=0)", "{name: np.array([0]) for name in exercises.BRANCH_SIZES}",
    "{name: complex(0) for name in exercises.BRANCH_SIZES}",
    "{name: 10**300 * i for i, name in enumerate(exercises.BRANCH_SIZES)}",
    "dict.fromkeys(exercises.BRANCH_SIZES, True)", "dict.fromkeys(exercises.BRANCH_SIZES, 1e999)",
)  # fmt: skip
FORGED_LINES = (
    '{{"id": "{0}", "passed": true}}', '{{"id": "{0}", "function": true, "value": {{"a": 0}}}}', '{{"id": "{0}", "value": true}}',
    '{{"id": "{0}", "raised": {{"x": 1}}, "text": [[1]]}}', '{{"id": "{0}", "object": "dict"}}', '{{"id": "{0}", "value": NaN}}',
)  # fmt: skip
FORGE = """import gc, threading, time
line = {line!r}
def lie():
    while True:
        for each in gc.get_objects():
            if type(each) is dict and 'seconds' in each and 'id' in each:
                for number in range(3, 12):
                    try: os.write(number, (line.format(each['id']) + chr(10)).encode())
                    except OSError: pass
        time.sleep(0.01)
threading.Thread(target=lie, daemon=True).start()
place = lambda *_: time.sleep(0.1)
"""


def cheats() -> Iterator[tuple[str, str]]:
    """Yields (name, cell) of each, for lab 2; the cell before it imports os, sys, Path and exercises, and defines NEIGHBOUR."""
    for (way, code), module in product(IMPORTS.items(), MODULES):
        yield f"{way} {module}", code.format(f"tinyredux.{module}") + TAKE
    for base, (shape, code), module in product(BASES, GIVEN.items(), ("builtins", "numpy")):
        yield f"lie {base} {shape} {module}", LIE.format(base=base, module=module, new=NEW.get(base, "()")) + code
    for (way, code), path in product(READERS.items(), PATHS):
        yield f"{way} {path}", code.format(path) + USE
    for name, code in PATCHES.items():
        root = name.split("[")[0].split(".")[0]
        yield f"patched {name}", f"import {root}\n{name} = {code}\nplace = lambda *_: {{}}\nby_hand = {{}}"
    for name, code in TRACES.items():
        yield f"spy {name}", f"from tinyredux import check\nseen = []\n{code}\n{SPY}"
    for code in PICKLES:
        yield f"value {code[:40]}", f"import collections, pickle, types, numpy as np\nplace = lambda *_: {code}\nby_hand = {code}"
    for line in FORGED_LINES:
        yield f"forged {line[14:40]}", FORGE.format(line=line)
