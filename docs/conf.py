"""The documentation site. `sphinx-build -j 8 -W --keep-going docs docs/_build/html` builds it, without any network.

Pages are MyST Markdown, tutorials are notebooks in the same format, executed at each build whose cache lacks them, and
the reference comes from the docstrings.
"""

import os
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "bayesnet"
author = "The bayesnet developers"
copyright = "the bayesnet developers, Apache-2.0"
version = release = installed_version("bayesnet")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",  # docs/_extensions: formulas are MathML made at build time, so that no script is fetched
    "notebooks",  # docs/_extensions: tutorials as files to download
    "plain_docstrings",  # docs/_extensions: docstrings are plain text, not reStructuredText
]
exclude_patterns = ["_build", "_extensions"]
html_math_renderer = "mathml"

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "notebook-cache")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / "_build" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"bayesnet {re.match(r'[0-9.]+', version)[0].rstrip('.')}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00695c", "color-brand-content": "#00695c"},
    "dark_css_variables": {"color-brand-primary": "#4db6ac", "color-brand-content": "#4db6ac"},
}
copybutton_exclude = ".linenos, .gp, .go"
