"""Sphinx configuration of the documentation; ``make docs`` builds it."""

import sys
from pathlib import Path

import twisted_registry

sys.path.append(str(Path(__file__).parent / "_extensions"))

project = "Twisted Registry"
author = "the authors of Twisted Registry"
release = version = twisted_registry.__version__

extensions = ["sphinx.ext.autodoc", "repository_links", "zope_interfaces"]

#: Files that a page includes.
included_files = {
    "../README.rst": "index",
    "../CHANGELOG.rst": "changelog",
    "../CONTRIBUTING.rst": "contributing",
    "../SECURITY.rst": "security",
}

add_module_names = False
autoclass_content = "both"
autodoc_member_order = "bysource"
nitpicky = True
# Names of other packages, and types of arguments that are described in words.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|io|os|pathlib|ssl|twisted|unittest)\..*"),
    ("py:class", "Deferred|IConsumer|IReactorTime|Path"),
    ("py:class", "AnyImage|Auth|Change|Config|Effect|FileSection|LayerSource|MakeEffect|Storage"),
    ("py:class", "APISettings|Configuration|IMetricsObserver|IPresenceGate|Limits|Policy"),
    ("py:class", r"RequestPattern|twisted_registry\.repository\.registry\.Registry|(.*\.)?_T"),
]

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
