"""Sphinx's settings for the published pages; docs/make_site.py gathers what they are made from."""

import re

project = "Image classification on a Snowflake stage"
copyright = "its contributors, MIT licence"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["README.md"]  # pages include its sections

nb_execution_mode = "off"
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of libraries; errors stop the build
myst_enable_extensions = []
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
add_module_names = False

smartquotes = False
html_theme = "furo"
html_title = project
html_favicon = "static/favicon.svg"
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
copybutton_selector = "div:not(.cell_output) > div.highlight > pre"


def as_rst(text: str) -> str:
    """A line of a docstring, whose only markup is `code`, in the language that autodoc reads."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        raise ValueError(f"A backtick has no partner: {text!r}. Close it in the docstring.")
    words = [re.sub(r"([*_|\\])", r"\\\1", part) for part in parts[::2]]
    code = [f"\\ ``{part}``\\ " for part in parts[1::2]]
    return "".join(part for pair in zip(words, [*code, ""], strict=True) for part in pair)


EXAMPLE = re.compile(r"((?:^|\n\n) *>>>.*?(?=\n\n|\Z))", re.DOTALL)  # to the next blank line


def convert_docstring(app, what, name, thing, options, lines) -> None:
    """Worked examples stay as they are; what stands between them is converted."""
    parts = EXAMPLE.split("\n".join(lines))  # every second one is an example
    parts[::2] = map(as_rst, parts[::2])
    lines[:] = "".join(parts).split("\n")


def give_captions_a_level(app, pagename, templatename, context, doctree) -> None:
    """Sphinx makes the sidebar's captions headings, but of no level, which screen readers need."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )


def setup(app) -> None:
    app.connect("html-page-context", give_captions_a_level, priority=900)  # after the theme's own
    app.connect("autodoc-process-docstring", convert_docstring)
