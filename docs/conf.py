"""The documentation as a site: `sphinx-build -W -c docs . site`. Its root is the repository, as on GitHub."""

import cake_jax

project = "cake_jax"
version = cake_jax.__version__
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**"]
html_theme = "furo"
html_title = f"cake_jax {version}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures have them
napoleon_use_ivar = True
napoleon_custom_sections = [("Source", "returns_style")]
