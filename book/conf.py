"""Sphinx settings of the book: `python -m tinyredux book` renders the chapters as they were committed."""

import json
import sys
from pathlib import Path

from docutils.nodes import container, image, literal_block

sys.path.insert(0, str(Path(__file__).parent))

project = "tinyredux"
author = "the authors of tinyredux"
copyright = "text: CC BY 4.0, code: Apache-2.0"
extensions = ["myst_nb", "sphinx_copybutton", "sphinx.ext.mathjax", "sphinx-mathjax-offline", "reference"]
exclude_patterns = ["conf.py", "conftest.py", "reference.py", "figures/*.py", "_build", "**/.ipynb_checkpoints"]
suppress_warnings = ["mystnb.unknown_mime_type"]

nb_execution_mode = "off"  # outputs are made and checked elsewhere: `make chapters`, `make test`
nb_merge_streams = True
nb_code_prompt_show = "Show the set-up: parameters and imports"
nb_code_prompt_hide = "Hide the set-up"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]

html_theme = "sphinx_book_theme"
html_title = "tinyredux: neural networks on microcontrollers"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_favicon = "_static/chip.svg"
html_copy_source = True  # the button on each page downloads its notebook
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": True,
    "navbar_end": [],
    "navbar_persistent": [],
    "use_fullscreen_button": False,
}

MATHJAX_KEPT = ("tex-chtml.js", "output/chtml/fonts/woff-v2")  # what the pages load; the other 22 MB are other input and output

LARGE_OUTPUT = 10_000  # characters: a picture or a flip-book


def setup(app):
    """Colours cells of C as C, gives pictures their words, and leaves out of the built site what no page loads."""
    app.connect("doctree-read", colour_c)
    app.connect("doctree-read", describe_pictures)
    app.connect("build-finished", remove_unused)


def colour_c(app, doctree):
    """Marks the cells that `%%firmware` compiles as C."""
    for block in doctree.findall(literal_block):
        if block.astext().startswith("%%firmware"):
            block["language"] = "c"


def describe_pictures(app, doctree):
    """Gives a picture that a cell made the words that stand beside it in the notebook, without the digest after them."""
    for bundle in doctree.findall(lambda node: isinstance(node, container) and node.get("nb_element") == "mime_bundle"):
        words = [text.astext() for text in bundle.findall(literal_block) if " [drawing " in text.astext()]
        for picture in bundle.findall(image) if words else ():
            picture["alt"] = words[0].partition(" [drawing ")[0]


def remove_unused(app, error):
    """Removes MathJax's other forms, the maps of scripts, and the pictures of notebooks to download, which draw them again."""
    static = Path(app.outdir) / "_static"
    mathjax = static / "mathjax"
    kept = tuple(str(mathjax / name) for name in MATHJAX_KEPT)
    for path in [*mathjax.rglob("*"), *static.rglob("*.map")]:
        if path.is_file() and not str(path).startswith(kept):
            path.unlink()
    for path in Path(app.outdir).joinpath("_sources").rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for output in (output for cell in notebook["cells"] for output in cell.get("outputs", []) if "data" in output):
            output["data"] = {kind: value for kind, value in output["data"].items() if len("".join(value)) < LARGE_OUTPUT}
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
