"""Who may import whom, read off the source of every module: :mod:`importrules` is the table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.import_rules import BANNED, CORE, LATE, MAY_IMPORT, PACKAGE, PURE

ROOT = Path(__file__).parent.parent / PACKAGE


def is_within(name, parent):
    return name == parent or name.startswith(f"{parent}.")


def rule_for(module):
    return next((rule for rule in MAY_IMPORT if is_within(module, rule)), None)


def imports(tree, module, *, is_package=False):
    """Yield (full dotted name, whether inside a function) for all that a module imports."""
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in inside
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = f"{PACKAGE}.{module}".rstrip(".").split(".")
                above = above[: len(above) - node.level + is_package]
                source = ".".join([*above, *filter(None, [source])])
            for alias in node.names:
                yield f"{source}.{alias.name}", node in inside


def attributes(tree):
    """Yield the dotted names that a module uses, in the words of its own imports."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name if alias.asname else alias.name.partition(".")[0]
                names[alias.asname or first] = first
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value  # noqa: PLW2901 (walking down the chain)
        if parts and isinstance(node, ast.Name) and node.id in names:
            yield ".".join([names[node.id], *reversed(parts)])


def own_part(name, known):
    """The module of this package that a dotted name lies in, or None for other packages."""
    if not is_within(name, PACKAGE):
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in known:
        parts.pop()
    return ".".join(parts)


def faults(module, source, known, *, is_package=False):
    """Say what is wrong with the imports of one module, a line for each."""
    tree = ast.parse(source)
    rule = rule_for(module)
    found = []
    if rule is None and module:
        return [f"{module} has no line in the table"]
    for name, late in imports(tree, module, is_package=is_package):
        part = own_part(name, known)
        if part is None:
            if rule in CORE and name.partition(".")[0] not in PURE:
                found.append(f"{module} imports {name}, and is no longer pure")
        elif not module:
            found.append(f"the package itself imports {name}")
        elif not is_within(part, rule) and not any(
            is_within(part, allowed) if allowed else part == "" for allowed in MAY_IMPORT[rule]
        ):
            found.append(f"{module} imports {name}")
        if late and not any(module == where and is_within(name, what) for where, what in LATE):
            found.append(f"{module} imports {name} inside a function")
    used = {name for name, _ in imports(tree, module, is_package=is_package)} | set(
        attributes(tree)
    )
    for banned, exempt in BANNED.items():
        if module not in exempt and any(is_within(name, banned) for name in used):
            found.append(f"{module} uses {banned}")
    return found


def modules():
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_what_it_may(module):
    path = MODULES[module]
    assert faults(module, path.read_text(), MODULES, is_package=path.name == "__init__.py") == []


def test_the_plugin_file_imports_nothing_of_ours():
    (plugin,) = (ROOT.parent / "twisted" / "plugins").glob("*.py")
    names = [name for name, _ in imports(ast.parse(plugin.read_text()), "plugin")]
    assert names
    assert not [name for name in names if is_within(name, PACKAGE)]


def test_no_package_has_logic_in_its_init_file():
    for path in ROOT.rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.ImportFrom), path


# The checker itself.

KNOWN = {
    *("", "api", "api.tags", "config", "config.schema", "repository", "repository.tags"),
    *("alone", "tap"),
    *("storage", "storage.interfaces", "storage.memory", "auth.interfaces", "auth.open", "digest"),
}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("api.tags", "from twisted_registry.storage.memory import MemoryDriver"),
        ("api.tags", "from twisted_registry.storage.interfaces import StorageError"),
        ("api.tags", "from twisted_registry.storage import interfaces"),
        ("api.tags", "import twisted_registry.storage.interfaces"),
        ("api.tags", "import twisted_registry.storage.interfaces as x"),
        ("api.tags", "from twisted_registry import storage"),
        ("api.tags", "from ..storage import interfaces"),
        ("api", "from ..storage import interfaces"),
        ("api.tags", "from twisted_registry.config.schema import Configuration"),
        ("api.tags", "from twisted_registry.auth.access import OpenAccess"),
        ("api.tags", "from twisted_registry.auth import open"),
        ("api.tags", "if TYPE_CHECKING:\n from twisted_registry.config.schema import X"),
        ("api.tags", "try:\n import twisted_registry.tap\nexcept ImportError: pass"),
        ("api.tags", "class A:\n from twisted_registry.config import schema"),
        ("repository.tags", "from twisted_registry.storage.memory import MemoryDriver"),
        ("repository.tags", "from twisted_registry.api import tags"),
        ("storage.memory", "from twisted_registry.repository import tags"),
        ("digest", "from twisted_registry.storage.interfaces import Entry"),
        ("digest", "from twisted.internet.defer import Deferred"),
        ("digest", "import zope.interface"),
        ("digest", "import os"),
        ("digest", "if TYPE_CHECKING:\n from pathlib import Path"),
        ("", "from twisted_registry.oci.digest import Digest"),
        ("novelty", "import json"),
        ("repository.tags", "def f():\n import json"),
        ("repository.tags", "async def f():\n from json import loads"),
        ("repository.tags", "class A:\n def f(self):\n  if 1:\n   import json"),
        ("cli", "def f():\n import json"),
        ("api.tags", "from twisted.internet import reactor"),
        ("api.tags", "from twisted.internet import reactor as r"),
        ("api.tags", "import twisted.internet.reactor"),
        ("api.tags", "import twisted.internet\nx = twisted.internet.reactor"),
        ("api.tags", "from twisted import internet\nx = internet.reactor.callLater"),
        ("api.tags", "import asyncio"),
        ("api.tags", "from asyncio import run"),
        ("api.tags", "import asyncio.events as e"),
        ("api.tags", "from twisted.internet.defer import ensureDeferred"),
        ("api.tags", "from twisted.internet import defer\ndefer.ensureDeferred(x)"),
        ("api.tags", "import time\ntime.time()"),
        ("api.tags", "import time as t\nf = t.time"),
        ("api.tags", "from time import time"),
        ("api.tags", "from time import sleep as nap"),
        ("service", "from twisted.internet import reactor"),
    ],
)
def test_a_planted_fault_is_found(module, source):
    assert faults(module, source, KNOWN, is_package=module == "api")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("api.tags", "from twisted_registry.repository.tags import Tags"),
        ("api.tags", "from twisted_registry.auth.interfaces import Grant"),
        ("api.tags", "from twisted_registry.api import tags"),
        ("api.tags", "from . import tags"),
        ("api.tags", "from twisted_registry.oci.digest import Digest"),
        ("repository.tags", "from twisted_registry.storage.interfaces import Entry"),
        ("repository.tags", "import json, time\ntime.monotonic()"),
        ("digest", "from collections.abc import Mapping\nfrom attrs import frozen"),
        ("tap", "from twisted.internet import reactor"),
        ("tap", "from twisted_registry import __version__"),
        ("commands.serve", "def f():\n from twisted_registry.app.standalone import run"),
        ("", "__version__ = '1'"),
        ("api.tags", "self.reactor = clock.time()"),
    ],
)
def test_what_is_allowed_is_no_fault(module, source):
    assert faults(module, source, KNOWN) == []


def test_modules_of_tests_have_names_of_their_own():
    # Folders of tests are no packages, so that pytest imports their modules by the bare name.
    seen: dict[str, Path] = {}
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        if path.name == "conftest.py" or (path.parent / "__init__.py").exists():
            continue
        assert seen.setdefault(path.name, path) == path


def test_the_checker_sees_this_package():
    assert len(MODULES) > 40
    assert {"", "digest", "api.endpoint", "repository.uploads", "storage.interfaces"} <= set(
        MODULES
    )
