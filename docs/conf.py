"""Sphinx: ``sphinx-build -W docs docs/_build``."""

project = "DVD-Quant"
author = "The DVD-Quant contributors"
project_copyright = author
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "data"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["tables.css"]
