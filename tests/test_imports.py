"""Who may import whom, and how large the library may grow: read from the source."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "tinyredux"

# The one place of the budget, in lines of code. Raising it is a decision with a reason in its commit.
PYTHON_LINES = 19950
C_LINES = 3600
LINES_PER_FILE = 400

LEVEL_0 = "boards files fixedpoint graph link lsh measure timing"
PARTIAL = "tiles schedule lowering arena regions ordering part_costs partial_sums run_schedule widths hybrid"
LEVEL_1 = f"{LEVEL_0} integer_params clustered trec_sizes interpret memory blob {PARTIAL}"
LEVEL_2 = f"{LEVEL_1} fast fast.* emit_*"
LEVEL_4 = f"{LEVEL_2} arrays elf build targets targets.* simulate simulate.*"

# First match counts: modules, what of ours they may import, what else beside the standard library. Never another pass.
RULES = (
    ("measure", "files timing", ""),
    (LEVEL_0, "files graph", "numpy"),
    ("integer_params", "graph fixedpoint", "numpy"),
    ("clustered trec_sizes", "graph fixedpoint lsh", "numpy"),
    ("interpret memory blob", f"{LEVEL_0} integer_params clustered trec_sizes", "numpy"),
    (PARTIAL, f"{LEVEL_0} integer_params trec_sizes interpret memory {PARTIAL}", "numpy"),
    ("passes passes.*", f"{LEVEL_0} integer_params trec_sizes interpret memory {PARTIAL}", "numpy"),
    ("fast fast.*", f"{LEVEL_1} fast fast.*", "numpy"),
    ("emit_*", f"{LEVEL_1} fast fast.* emit_*", "numpy"),
    ("elf", "", ""),
    ("build", f"{LEVEL_2} elf", ""),
    ("targets targets.* simulate simulate.*", LEVEL_4, "numpy serial unicorn capstone"),
    ("download synthetic", "", "numpy"),
    ("arrays", "files", "numpy"),
    ("speech", "arrays download", "numpy"),
    ("persons", "arrays download", "numpy PIL"),
    ("datasets", "arrays download files synthetic speech persons", "numpy"),
    ("export*", "graph interpret export*", "numpy torch"),
    ("mobile_nets", "", "torch"),
    ("user_nets", "graph", "torch"),
    ("nets train* trec_layer", f"{LEVEL_0} datasets mobile_nets user_nets nets train* trec_layer", "numpy torch safetensors"),
    ("plots plots_*", "*", "numpy matplotlib"),
    ("book labs", "*", "nbformat nbclient nbconvert papermill jupyter_client"),
    (
        "accuracy channels evaluator model_card pretrained prune significance skip* trec_flow trec_report",
        "*",
        "numpy torch safetensors",
    ),
    ("cell exercises* magics teaching", "*", "numpy IPython"),
    ("designs", "*", "numpy"),
    ("search explore", "*", "numpy optuna"),
    ("__init__ __main__ bench bench_record claims cli code_sizes doctor flow kernels partial_flow plan verbs*", "*", "numpy"),
)


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        found.append((name, path))
    return found


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Returns the modules of ours, and the packages of others, that a file imports anywhere in it."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "tinyredux":
            names = [f"tinyredux.{alias.name}" for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "tinyredux":
                ours.add(rest)
            elif package not in sys.stdlib_module_names:
                others.add(package)
    return ours - {""}, others


def matches(name: str, patterns: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns.split())


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_follow_the_table(name: str, path: Path) -> None:
    rule = next((rule for rule in RULES if matches(name, rule[0])), None)
    assert rule is not None, f"{path.name} is in no row of RULES; decide its level first"
    ours, others = imports(path)
    upwards = sorted(target for target in ours if not matches(target, rule[1]))
    foreign = sorted(package for package in others if package not in rule[2].split())
    assert not upwards, f"{name} imports {upwards}, allowed: {rule[1] or 'nothing of ours'}"
    assert not foreign, f"{name} imports {foreign}, allowed: {rule[2]}"


def test_torch_is_not_imported_by_what_can_do_without_it() -> None:
    light = "cli, build, boards, memory, interpret, emit_c, datasets, doctor, targets.host, targets.board"
    imported = ", ".join(f"tinyredux.{name}" for name in light.split(", "))
    code = (
        f"import sys, tinyredux, {imported}\nprint([name for name in ('torch', 'matplotlib', 'IPython') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def code_lines(path: Path) -> int:
    """Returns the lines that hold code: blank lines, comments and docstrings do not count, so nobody saves on them."""
    text = path.read_text()
    if path.suffix != ".py":
        bare = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        return sum(1 for line in bare.splitlines() if line.strip())
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_the_library_stays_within_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [ROOT / "firmware" / name for name in ("include", "kernels", "runtime", "ports")]
    c_files = [*LIBRARY.rglob("*.c"), *(path for folder in folders for path in folder.glob("*.[ch]"))]
    python = sum(code_lines(path) for _, path in modules())
    c = sum(code_lines(path) for path in c_files)
    with capsys.disabled():
        print(f"\nlibrary: {python} of {PYTHON_LINES} lines of Python, {c} of {C_LINES} lines of C")
    assert python <= PYTHON_LINES and c <= C_LINES


def test_no_file_is_too_long() -> None:
    counts = {path.name: len(path.read_text().splitlines()) for _, path in modules()}
    long = {name: count for name, count in counts.items() if count > LINES_PER_FILE}
    assert not long, f"files over {LINES_PER_FILE} lines: {long}"
