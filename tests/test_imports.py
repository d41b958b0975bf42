"""The layers of ``docs/design.rst``, a row for each folder, read off the imports of all modules."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "twisted_registry"
ROOT = Path(__file__).parent.parent / PACKAGE

#: What a folder may import of this package besides itself: folders, or single modules of them.
#: Imports for type checkers count as well.
LAYERS = {
    "oci": (),
    "frame": (),
    "tls": ("http.interfaces", "storage.files"),
    "logs": ("http.request_id",),
    "metrics": ("repository.interfaces", "storage.interfaces"),
    "http": (),
    "config": (
        "oci.linear_regex",
        "oci.patterns",
    ),
    "storage": ("http.client", "http.client_proxies", "oci"),
    "repository": ("storage.fallbacks", "storage.interfaces", "oci"),
    "auth": ("tls.interfaces", "storage.files", "oci"),
    "tokens": (
        *("auth", "http.client", "repository.errors", "repository.layout", "storage.fallbacks"),
        *("storage.interfaces", "oci"),
    ),
    "acme": ("tls", "http.client", "storage.files", ""),
    "workers": ("config.loading", "metrics.interfaces", "tls.interfaces"),
    "gc": ("repository", "storage.fallbacks", "storage.files", "storage.interfaces", "oci"),
    "health": ("http.client", "storage.interfaces"),
    "doctor": ("http.client", "logs.mail", "storage.s3", "tls"),
    "integrity": (
        *("gc.delete_list", "repository", "storage.fallbacks", "storage.interfaces", "oci"),
    ),
    "statistics": (
        *("gc.mark", "gc.reference_db", "maintenance.pull_times", "repository"),
        *("storage.interfaces", "oci"),
    ),
    "maintenance": ("repository", "storage.fallbacks", "storage.interfaces", "oci"),
    "notifications": (
        *("http.client", "repository.interfaces", "storage.files", "storage.threads", "oci"),
    ),
    "tracing": ("http.request", "storage.interfaces"),
    "api": (
        *("http", "repository", "metrics.interfaces", "tls.interfaces", "storage.interfaces"),
        *(
            "health.interfaces",
            "auth.access",
            "auth.audit",
            "auth.credentials",
            "auth.interfaces",
            "auth.rate_limits",
        ),
        *("auth.scopes", "tokens", "oci"),
    ),
    "app": (
        *("acme", "api", "auth", "config", "gc", "health", "http", "integrity", "logs"),
        *("metrics", "notifications", "oci", "repository", "statistics", "storage", "tls"),
        *("doctor", "frame", "maintenance", "tokens", "tracing", "workers", ""),
    ),
    "commands": (
        *("app", "auth", "config", "gc", "integrity", "maintenance", "notifications", "oci"),
        *("doctor", "frame", "repository", "statistics", "storage", "tokens", ""),
    ),
    "testing": (
        *("app", "api", "auth", "config", "http", "metrics", "repository", "storage", "tls"),
        "oci",
    ),
    "cli": ("frame.errors", "commands.parser"),
    "tap": ("app", ""),
    "__main__": ("cli",),
    "pytest_plugin": ("testing",),
    # For type checkers; they are imported when they are first used.
    "": (
        *("app.embedding", "frame.errors", "app.service", "auth.interfaces", "config.document"),
        *("config.loading", "repository.interfaces", "storage.interfaces"),
    ),
}

#: The standard library, attrs and RE2, as far as the grammar and the documents need them.
PURE = {
    *("__future__", "attrs", "collections", "enum", "functools", "hashlib", "json", "re", "re2"),
    "typing",
}

#: The package's own imports inside functions: of optional extras, of the modules of commands, and
#: of modules that are heavy and that few installations, or registries in tests, use.
LATE = {
    ("tap", "app.process"): "inside freeze_imports, and not for twistd --help",
    ("app.standalone", "app.process"): "inside freeze_imports",
    ("app.standalone", "app.worker"): "inside freeze_imports",
    ("app.debug", "metrics.prometheus"): "the extra metrics",
    ("app.access", "app.tokens"): "the extra auth",
    ("app.service", "app.access"): "for registries with access control only",
    ("app.tracing", "tracing"): "the extra otel",
    ("app.access", "auth"): "bcrypt, twisted.cred and the extra auth",
    ("app.tls", "acme.renewal"): "the extra acme",
    ("app.service", "app.s3"): "an HTTP client and XML, for buckets only",
    ("app.service", "app.health"): "for health checks only",
    ("app.health", "health.http_check"): "an HTTP client, for checks over HTTP only",
    ("app.logs", "logs.mail"): "an SMTP client, for hooks only",
    ("app.logs", "tracing"): "the extra otel",
    ("app.service", "app.tls"): "cryptography, for TLS only",
    ("app.access", "app.plugins"): "importlib.metadata, for plugins only",
    ("app.service", "app.plugins"): "as in app.access",
    ("app.service", "app.notifications"): "SQLite and an HTTP client, for endpoints only",
    ("app.stores", "app.plugins"): "as in app.access",
    ("config.environment", "config.parsing"): "PyYAML, not for mappings",
    ("config.loading", "config.parsing"): "as in config.environment",
    ("app.service", "app.middleware"): "cryptography and an HTTP client, for middleware only",
    ("app.stores", "app.s3"): "as in app.service",
    ("app.stores", "app.redis"): "the extra redis",
    ("app.process", "app.systemd"): "for systemd only",
    ("app.service", "app.debug"): "for http.debug.addr only",
    ("app.service", "app.metrics"): "for metrics only",
    ("app.service", "app.variables"): "for http.debug.addr only",
    ("app.service", "workers"): "for several processes only",
    ("app.service", "maintenance.pull_times"): "for retention by pulls only",
    ("app.stores", "storage.filesystem"): "not for buckets and memory",
    ("app.maintenance", "app.collector"): "SQLite, for collections only",
    ("app.maintenance", "app.integrity"): "for scrubs only",
    ("app.maintenance", "maintenance.pull_times"): "for retention only",
    ("app.maintenance", "maintenance.retention"): "for retention only",
    ("app.maintenance", "maintenance.quota_count"): "for quotas only",
    ("app.maintenance", "tokens.records"): "for registries with tokens only",
    ("app.start_checks", "app.plugins"): "as in app.access",
    ("app.start_checks", "app.access"): "Twisted, for auth.token only",
    ("app.start_checks", "app.tls"): "cryptography, for TLS only",
    ("app.start_checks", "tls"): "cryptography, for TLS only",
    ("app.start_checks", "tokens.keys"): "the extra auth",
    ("app.doctor", "app.redis"): "the extra redis",
    ("commands.doctor", "app.doctor"): "it is not for files with faults",
    ("commands.doctor", "app.standalone"): "it installs the reactor",
    ("commands.doctor", "doctor.runner"): "as app.doctor",
    ("commands.check", "commands.doctor"): "for --full only",
    ("storage.s3.credentials", "storage.s3.botocore_credentials"): "the extra aws",
    ("commands.stats_watch", "statistics.activity"): "the extra metrics",
    ("commands.store", "app.s3"): "for buckets only",
    ("commands.check", "app.standalone"): "it installs the reactor, for buckets only",
    ("commands.check", "app.middleware"): "for buckets only",
    ("commands.check", "app.s3"): "for buckets only",
    ("commands.check", "app.stores"): "for buckets only",
    ("commands.user", "auth.password_file"): "bcrypt, for new passwords only",
    ("commands.serve", "app.standalone"): "it installs the reactor",
    ("pytest_plugin", "testing"): "Twisted, for tests that use a fixture only",
    ("testing.server", "tls"): "cryptography's modules for X.509, for TLS only",
    ("testing.server", "auth.basic"): "twisted.cred, for servers with users only",
    ("testing.options", "tls.authority"): "cryptography's modules for X.509, for TLS only",
    ("testing.options", "auth.password_file"): "bcrypt, for registries with users only",
}

#: Names that nothing may use, with the modules that may.
BANNED = {
    "asyncio": (),
    "twisted.internet.reactor": ("app.standalone", "tap"),
    "twisted.internet.defer.ensureDeferred": (),
    "time.time": (),
    "time.sleep": (),
}


def is_within(name, parent):
    return name == parent or name.startswith(f"{parent}.")


def imported(tree, module, *, is_package):
    """Yield the full dotted name of each import, and whether it is inside a function."""
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = f"{PACKAGE}.{module}".rstrip(".").split(".")
                above = above[: len(above) - node.level + is_package]
                source = ".".join([*above, *filter(None, [source])])
            yield from ((f"{source}.{alias.name}", node in inside) for alias in node.names)


def used(tree):
    """Yield the dotted names that a module uses through the names that it imports."""
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
            node = node.value  # noqa: PLW2901 - walks down the chain
        if parts and isinstance(node, ast.Name) and node.id in names:
            yield ".".join([names[node.id], *reversed(parts)])


def module_of(name, known):
    """Return the module of this package that holds a dotted name, or None for other packages."""
    if not is_within(name, PACKAGE):
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in known:
        parts.pop()
    return ".".join(parts)


def violations(module, source, known, *, is_package=False):
    """Return a line for each import of a module that its folder's row does not allow."""
    tree = ast.parse(source)
    folder = module.partition(".")[0]
    if folder not in LAYERS:
        return [f"{folder} has no row in LAYERS"]
    found = []
    imports = list(imported(tree, module, is_package=is_package))
    for name, late in imports:
        target = module_of(name, known)
        if target is None:
            if folder == "oci" and name.partition(".")[0] not in PURE:
                found.append(f"{module} imports {name} and is no longer pure")
            continue
        allowed = target.partition(".")[0] == folder or any(
            is_within(target, row) if row else target == "" for row in LAYERS[folder]
        )
        if not allowed:
            found.append(f"{module} imports {name}")
        if late and not any(module == where and is_within(target, what) for where, what in LATE):
            found.append(f"{module} imports {name} inside a function")
    names = {name for name, _ in imports} | set(used(tree))
    found += [
        f"{module} uses {banned}"
        for banned, exempt in BANNED.items()
        if module not in exempt and any(is_within(name, banned) for name in names)
    ]
    return found


def all_modules():
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = all_modules()
FOLDERS = sorted({module.partition(".")[0] for module in MODULES})


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_its_row_allows(folder):
    found = []
    for module, path in MODULES.items():
        if module.partition(".")[0] == folder:
            is_package = path.name == "__init__.py"
            found += violations(module, path.read_text(), MODULES, is_package=is_package)
    assert found == []


def test_the_imports_of_the_folders_have_no_cycle():
    needs = {folder: set() for folder in FOLDERS}
    for module, path in MODULES.items():
        folder = module.partition(".")[0]
        if not module:
            continue  # the public names, which are not imported with the package
        for name, _ in imported(ast.parse(path.read_text()), module, is_package=False):
            target = module_of(name, MODULES)
            if target and target.partition(".")[0] != folder:
                needs[folder].add(target.partition(".")[0])
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the cycle


def test_nothing_else_is_at_the_top_of_the_package():
    names = {path.name for path in ROOT.glob("*.py")}
    assert names == {"__init__.py", "__main__.py", "cli.py", "pytest_plugin.py", "tap.py"}


def test_the_plugin_module_imports_nothing_of_the_package():
    (plugin,) = (ROOT.parent / "twisted" / "plugins").glob("*.py")
    tree = ast.parse(plugin.read_text())
    names = [name for name, _ in imported(tree, "plugin", is_package=False)]
    assert names
    assert not [name for name in names if is_within(name, PACKAGE)]


def test_no_package_has_logic_in_its_init_module():
    for path in ROOT.rglob("*/__init__.py"):
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.ImportFrom), path


KNOWN = {
    *("", "api", "api.tags", "config", "config.schema", "repository", "repository.tags", "tap"),
    *("storage", "storage.interfaces", "storage.memory", "auth.interfaces", "auth.basic"),
    *("oci", "oci.digest", "app.standalone", "commands.serve"),
}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("api.tags", "from twisted_registry.storage.memory import MemoryDriver"),
        ("api.tags", "import twisted_registry.storage.memory as x"),
        ("api.tags", "from twisted_registry import storage"),
        ("api.tags", "from ..storage import memory"),
        ("api.tags", "if TYPE_CHECKING:\n from twisted_registry.config.schema import X"),
        ("api.tags", "try:\n import twisted_registry.tap\nexcept ImportError: pass"),
        ("repository.tags", "from twisted_registry.api import tags"),
        ("repository.tags", "def f():\n from twisted_registry.oci import digest"),
        ("oci.digest", "from twisted.internet.defer import Deferred"),
        ("oci.digest", "import os"),
        ("", "from twisted_registry.oci.digest import Digest"),
        ("novelty", "import json"),
        ("api.tags", "from twisted.internet import reactor as r"),
        ("api.tags", "import twisted.internet\nx = twisted.internet.reactor"),
        ("api.tags", "from twisted import internet\nx = internet.reactor.callLater"),
        ("api.tags", "import asyncio.events as e"),
        ("api.tags", "from twisted.internet import defer\ndefer.ensureDeferred(x)"),
        ("api.tags", "import time as t\nf = t.time"),
        ("api.tags", "from time import sleep as nap"),
    ],
)
def test_a_forbidden_import_is_found(module, source):
    assert violations(module, source, KNOWN)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("api.tags", "from twisted_registry.repository.tags import Tags"),
        ("api.tags", "from twisted_registry.auth.interfaces import Grant"),
        ("api.tags", "from . import tags"),
        ("api.tags", "def f():\n import json"),
        ("repository.tags", "import json, time\ntime.monotonic()"),
        ("oci.digest", "from collections.abc import Mapping\nfrom attrs import frozen"),
        ("tap", "from twisted.internet import reactor"),
        ("commands.serve", "def f():\n from twisted_registry.app.standalone import run"),
        ("api.tags", "self.reactor = clock.time()"),
    ],
)
def test_an_allowed_import_is_not_reported(module, source):
    assert violations(module, source, KNOWN) == []
