"""The page of the library's names: what each takes, what it does, its source, and the chapters that use it.

Read from the sources and the notebooks, so that it cannot part from them; nothing is imported. In chapters, `tr.compile` and its
like become links to this page.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.addnodes import index, pending_xref

BOOK = Path(__file__).resolve().parent
LIBRARY = BOOK.parent / "tinyredux"
Definition = ast.FunctionDef | ast.ClassDef


@dataclass
class Name:
    """A name of the library: where it is defined, and the pages that use it."""

    name: str
    module: str
    text: str
    node: Definition
    pages: list[str] = field(default_factory=list)

    @property
    def signature(self) -> str:
        """How it is called; a dataclass by its fields."""
        if isinstance(self.node, ast.FunctionDef):
            returned = f" -> {ast.unparse(self.node.returns)}" if self.node.returns else ""
            return f"{self.name}({ast.unparse(self.node.args)}){returned}"
        fields = [ast.unparse(line) for line in self.node.body if isinstance(line, ast.AnnAssign)]
        return f"{self.name}({', '.join(one for one in fields if 'ClassVar' not in one)})"

    @property
    def source(self) -> str:
        """Its text."""
        return ast.get_source_segment(self.text, self.node) or ""


def names_of(cells: list[str]) -> dict[str, str]:
    """Returns the names of the library that a chapter's cells use, each with the module that it is taken from."""
    found, modules = {}, {"tr": "tinyredux"}
    for code in cells:
        if code.startswith("%%"):  # C
            continue
        for node in ast.walk(ast.parse("\n".join(line for line in code.splitlines() if not line.startswith(("%", "!"))))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tinyredux":
                for alias in node.names:
                    path = LIBRARY.parent / str(node.module).replace(".", "/") / alias.name
                    known = modules if path.with_suffix(".py").is_file() or path.is_dir() else found
                    known[alias.name] = f"{node.module}.{alias.name}" if known is modules else str(node.module)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                found[node.attr] = modules[node.value.id]
    return found


def chapters() -> list[Path]:
    """Returns the notebooks of the book in their order."""
    return [*sorted(BOOK.glob("*.ipynb")), *sorted(BOOK.glob("labs/*.ipynb"))]


@cache
def library() -> dict[str, Name]:
    """Returns the public names and every other one that a chapter imports, by name."""
    homes = _homes()
    found: dict[str, Name] = {}
    for name, module in homes.items():
        _add(found, name, module)
    for path in chapters():
        page = str(path.relative_to(BOOK).with_suffix(""))
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        used = names_of(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])
        for name, module in used.items():
            _add(found, name, homes.get(name, module))
            if name in found:
                found[name].pages.append(page)
    return found


@cache
def _homes() -> dict[str, str]:
    for node in ast.parse((LIBRARY / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_HOMES":
            homes: dict[str, str] = ast.literal_eval(node.value)
            return {name: f"tinyredux.{module}" for module, names in homes.items() for name in names.split()}
    raise LookupError("tinyredux/__init__.py has no table _HOMES")


def _add(found: dict[str, Name], name: str, module: str) -> None:
    """Adds a function or class, looked for in its module and in those that the module takes its names from."""
    if name in found:
        return
    waiting, seen = [module], set()
    while waiting:
        module = waiting.pop()
        base = LIBRARY.parent / module.replace(".", "/")
        path = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if module in seen or not path.is_file():
            continue
        seen.add(module)
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, Definition) and node.name == name:
                found[name] = Name(name, module, text, node)
                return
            if isinstance(node, ast.ImportFrom) and any(name in (one.name, one.asname) for one in node.names):
                waiting.append(str(node.module))


class Library(Directive):
    """`{library}`: an entry for each name, in alphabetical order."""

    def run(self) -> list[nodes.Node]:
        """Returns the entries."""
        shown: list[nodes.Node] = []
        for name, one in sorted(library().items(), key=lambda item: item[0].lower()):
            entry = nodes.section(ids=[f"name-{name}"], names=[f"name-{name}"])
            entry += nodes.title("", "", nodes.literal("", name))
            kind = "function" if isinstance(one.node, ast.FunctionDef) else "class"
            entry += index(entries=[("single", f"{name} ({kind})", f"name-{name}", "", None)])
            entry += nodes.literal_block(one.signature, one.signature, language="python", classes=["signature"])
            for part in (ast.get_docstring(one.node) or "").split("\n\n"):
                entry += (
                    nodes.literal_block(part, part) if part.startswith("    ") else nodes.paragraph("", part.replace("\n", " "))
                )
            where = nodes.paragraph("", f"{one.module.removeprefix('tinyredux.')}. ")
            if one.pages:
                where += nodes.Text("Used in ")
                for page in one.pages:
                    where += pending_xref(
                        "",
                        nodes.inline(),
                        refdomain="std",
                        reftype="doc",
                        refdoc="library",
                        reftarget=page,
                        refexplicit=False,
                        refwarn=True,
                    )
                    where += nodes.Text("." if page == one.pages[-1] else "; ")
            entry += where
            entry += nodes.raw("", "<details><summary>Source</summary>", format="html")
            entry += nodes.literal_block(one.source, one.source, language="python")
            entry += nodes.raw("", "</details>", format="html")
            shown.append(entry)
        return shown


def link_names(app: Any, doctree: nodes.document) -> None:
    """Makes a link of each inline `tr.name`, `name` or `name()` of the page of names, outside headings and links."""
    if app.env.docname == "library":
        return
    for literal in [*doctree.findall(nodes.literal)]:
        said = re.fullmatch(r"(tr\.)?([A-Za-z_]\w*)(\(\))?", literal.astext())
        inside = [type(parent) for parent in _above(literal)]
        plain = said and (said[1] or said[3] or "_" in said[2] or said[2] in _homes())  # `plan` may be a verb
        if plain and said[2] in library() and not {nodes.title, nodes.reference} & set(inside):
            depth = "../" * app.env.docname.count("/")
            link = nodes.reference("", "", literal.deepcopy(), refuri=f"{depth}library.html#name-{said[2]}", internal=True)
            literal.replace_self(link)


def _above(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        found.append(node := node.parent)
    return found


def setup(app: Any) -> dict[str, bool]:
    """Registers the directive and the links."""
    app.add_directive("library", Library)
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True}
