"""Sphinx's settings for the pages of docs/: `make docs` prepares the sources (tools/site.py) and builds them."""

import inspect
import re

import fastscalar

project = "fastscalar"
author = "The fastscalar developers"
copyright = author
release = version = fastscalar.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
nitpicky = False
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"fastscalar {release}"
html_show_sourcelink = False
html_copy_source = False
html_static_path = []
html_last_updated_fmt = None

# Cells of the course begin below the title of the lesson.  A name in a signature may be that of several classes.
suppress_warnings = ["myst.header", "ref.python"]

linkcheck_ignore = [r"https?://"]  # `make docs` needs no network; `make docs LINKS=1` asks each address
linkcheck_timeout = 20

EXAMPLE = re.compile(r"^\s*>>> ")


def paragraph(lines):
    """Prose: names between backticks are code, and no other character means anything."""
    text = "\n".join(lines)
    parts = text.split("`")
    for k in range(0, len(parts), 2):
        parts[k] = re.sub(r"([\\*|_<>:])", r"\\\1", parts[k])
    out = parts[0]
    for k in range(1, len(parts), 2):
        rest = parts[k + 1] if k + 1 < len(parts) else ""
        out += f":code:`{parts[k]}`" + ("\\ " if rest[:1].isalnum() else "") + rest
    return out.split("\n")


def docstring(app, what, name, obj, options, lines):
    """The docstrings are plain text: paragraphs, examples, and indented blocks, which stay as they are."""
    out, block = [], []

    def flush():
        if not block:
            return
        if EXAMPLE.match(block[0]):
            out.extend([".. code-block:: pycon", "", *(f"   {line}" for line in block), ""])
        elif all(line.startswith("    ") for line in block):
            out.extend(["::", "", *block, ""])
        else:
            rows = [line.strip() for line in block]
            # "name: what it is" begins a line of its own.
            for k, row in enumerate(rows):
                begins = re.match(r"^`?\w+`?(, `?\w+`?)*: ", row) is not None
                if k and begins and rows[k - 1].endswith((".", ";")):
                    out.append("")
                out.extend(paragraph([row]))
            out.append("")
        block.clear()

    for line in lines:
        if line.strip():
            if EXAMPLE.match(line) and block and not EXAMPLE.match(block[0]):
                flush()
            block.append(line)
        else:
            flush()
    flush()
    lines[:] = out


def signature(app, what, name, obj, options, args, returns):
    """Of a class what Python itself says, where its metaclass takes anything."""
    if what == "class" and args and "*args" in args and not name.startswith("fastscalar.reference"):
        try:
            return str(inspect.signature(obj)).replace("'", "").replace(" -> None", ""), None
        except (TypeError, ValueError):
            return None
    return None


def setup(app):
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
