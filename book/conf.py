"""Sphinx settings of the book: `python -m tinyredux book` renders the chapters as they were committed."""

project = "tinyredux"
author = "the authors of tinyredux"
copyright = "text: CC BY 4.0, code: Apache-2.0"
extensions = ["myst_nb", "sphinx_copybutton", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
exclude_patterns = ["conf.py", "conftest.py", "figures/*.py", "_build", "**/.ipynb_checkpoints"]
suppress_warnings = ["mystnb.unknown_mime_type"]

nb_execution_mode = "off"  # outputs are made and checked elsewhere: `make chapters`, `make test`
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]

html_theme = "sphinx_book_theme"
html_title = "tinyredux: neural networks on microcontrollers"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
