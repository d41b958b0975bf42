"""Sphinx extension: the directive ``autointerface`` documents an interface of zope.interface.

The interface is read from its source. At run time it has neither the annotations nor the
keyword-only arguments of its methods.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx


class AutoInterface(SphinxDirective):
    """``.. autointerface:: IName``, of the module in ``py:currentmodule``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the description of the interface and of all its members."""
        (name,) = self.arguments
        module = import_module(self.env.ref_context["py:module"])
        self.env.note_dependency(inspect.getsourcefile(module) or "")
        tree = ast.parse(inspect.getsource(module))
        (interface,) = (
            node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name
        )
        return self.parse_text_to_nodes("\n".join(_describe(interface)))


def _describe(interface: ast.ClassDef) -> Iterator[str]:
    bases = [ast.unparse(base) for base in interface.bases]
    own_bases = [f":class:`{base}`" for base in bases if base != "Interface"]
    yield from (f".. py:class:: {interface.name}", "")
    if own_bases:
        yield from (f"   Bases: {', '.join(own_bases)}", "")
    yield from _indent(ast.get_docstring(interface), "   ")
    for member in interface.body:
        match member:
            case ast.FunctionDef(name=name, args=arguments, returns=returns):
                result = f" -> {ast.unparse(returns)}" if returns else ""
                yield from (f"   .. py:method:: {name}({ast.unparse(arguments)}){result}", "")
                yield from _indent(ast.get_docstring(member), "      ")
            case ast.AnnAssign(
                target=ast.Name(id=name),
                annotation=annotation,
                value=ast.Call(args=[ast.Constant(value=text)]),
            ):
                yield from (
                    f"   .. py:attribute:: {name}",
                    f"      :type: {ast.unparse(annotation)}",
                )
                yield from ("", *_indent(text, "      "))


def _indent(text: str | None, indentation: str) -> Iterator[str]:
    for line in (text or "").splitlines():
        yield indentation + line if line else ""
    yield ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_directive("autointerface", AutoInterface)
    return {"version": "1", "parallel_read_safe": True}
