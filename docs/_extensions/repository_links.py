"""Sphinx extension: links to files of the repository lead to their pages.

Links in the documentation are relative to the file that they are written in, so that they work on
a git host: ```docs/tls.rst <docs/tls.rst>`_`` in ``README.rst``. In the site, a link to a page
becomes one to its HTML, with the title of the page as its text. A link to another file becomes a
download, and one to a file that does not exist a warning. Paths of images are resolved in the same
way.
"""

from __future__ import annotations

import os.path
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import get_node_source

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class RepositoryLinks(SphinxTransform):
    """Resolve the targets of links and images against the files that contain them."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Replace the links of a page."""
        for image in self.document.findall(nodes.image):
            image["uri"] = "/" + self._find(image, image["uri"])
        for link in list(self.document.findall(nodes.reference)):
            target = link.get("refuri", "")
            if target and not target.startswith("#") and not urlsplit(target).scheme:
                link.replace_self(self._link(link, self._find(link, target)))

    def _find(self, node: nodes.Node, target: str) -> str:
        """Return the path of a file, relative to the folder of the pages."""
        folder = Path(get_node_source(node) or "").absolute().parent
        return os.path.relpath(folder / target, self.env.srcdir)

    def _link(self, link: nodes.reference, path: str) -> nodes.Node:
        page = self.config.included_files.get(path, path.removesuffix(".rst"))
        text = link.astext()
        attributes = {"refdoc": self.env.docname, "refwarn": True}
        if page not in self.env.found_docs:
            attributes |= {"reftype": "download", "reftarget": f"/{path}"}
            return addnodes.download_reference("", "", nodes.literal(text, text), **attributes)
        attributes |= {"refdomain": "std", "reftype": "doc", "reftarget": f"/{page}"}
        is_path = text.endswith(".rst")
        return addnodes.pending_xref(
            "", nodes.inline(text, text), refexplicit=not is_path, **attributes
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_config_value("included_files", {}, "env", dict)
    app.add_transform(RepositoryLinks)
    return {"version": "1", "parallel_read_safe": True}
