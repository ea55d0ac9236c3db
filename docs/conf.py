"""Settings of Sphinx, which `make docs` runs."""

import collections
import dataclasses
import inspect
import re

import chex
from sphinx.util import typing as sphinx_typing

import fcn_jax
from fcn_jax.runs import config

project = "fcn_jax"
copyright = "The authors of fcn_jax. Apache License 2.0"
version = release = fcn_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# Headings can be linked to as on GitHub: page.md#a-heading.
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"fcn_jax {version}"
html_copy_source = False
html_show_sphinx = False

# `name` in a docstring becomes a link where there is such a name.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 120
napoleon_attr_annotations = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_display_short_literal_types = True
python_use_unqualified_type_names = True

# The fields of a named tuple, whose docstrings only say that they are fields.
_FIELD = type(collections.namedtuple("_Example", "field").field)
# What Sphinx makes of this name.
_ARRAY_TREE = sphinx_typing.stringify_annotation(chex.ArrayTree, "smart")
# Headings of sections in docstrings, such as "Args:".
_SECTION = re.compile(r"[A-Z][a-z]+:$")
# A name, and a letter of its ending.
_NAME = re.compile(r"(`[^`]*`)(\w?)")


def as_restructured_text(app, what, name, obj, options, lines):
  """Docstrings are written like Markdown; Sphinx reads reStructuredText.

  Indented blocks are code, names may have an ending (`Batch`es), and bars are
  bars.
  """
  del app, name, obj, options
  if what == "attribute":
    # Napoleon would take "Data set: ..." for a type and a description.
    lines.insert(0, "")
  for index in range(len(lines) - 2, 0, -1):
    before, blank, line = lines[index - 1 : index + 2]
    begins = line.startswith("    ") and not blank.strip()
    if begins and before[:1].strip() and not _SECTION.match(before):
      lines[index : index + 1] = ["", "::", ""]
  for index, line in enumerate(lines):
    line = _NAME.sub(
      lambda match: "\\ ".join(filter(None, match.groups())), line
    )
    lines[index] = re.sub(r"\|(\w+)\|", r"\|\1\|", line)


def shorten(app, what, name, obj, options, signature, returns):
  """Gives long types their name, and leaves out options that are listed."""
  del app, what, name, options
  if dataclasses.is_dataclass(obj) and obj.__module__ == config.__name__:
    names = inspect.signature(obj).parameters
    is_listed = not issubclass(obj, config.Groups)
    return f"({'...' if is_listed else ', '.join(names)})", None
  return tuple(
    text and text.replace(_ARRAY_TREE, "chex.ArrayTree")
    for text in (signature, returns)
  )


def skip_fields(app, what, name, obj, skip, options):
  """Leaves out the fields of named tuples: their class describes them."""
  del app, what, name, options
  return True if isinstance(obj, _FIELD) else skip


def setup(app):
  """Adds the hooks."""
  # Before napoleon, which has the priority 500.
  app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
  app.connect("autodoc-process-signature", shorten)
  app.connect("autodoc-skip-member", skip_fields)
