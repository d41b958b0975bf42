"""The modules that a start imports: those that it uses, and nothing heavy beside them."""

from __future__ import annotations

import sys

import pytest

from tests.support.processes import ROOT, RegistryProcess, run, write_configuration
from twisted_registry.testing import build_image

#: Prints all imported modules at the end of the process.
PRINT_MODULES = """
import atexit, sys
atexit.register(lambda: print("imported", *sys.modules))
"""
COMMAND = f"{PRINT_MODULES}from twisted_registry.cli import main\nsys.exit(main(sys.argv[1:]))"
#: Packages and modules that take long to import, by themselves or by what they import.
HEAVY = {
    *("asyncio", "concurrent", "csv", "ctypes", "email", "html", "http", "logging"),
    *("multiprocessing", "sqlite3", "ssl", "subprocess", "unittest", "urllib.request", "xml"),
    *("boto3", "botocore", "cattrs", "cryptography", "OpenSSL", "pkg_resources", "requests"),
    *("service_identity", "treq", "urllib3", "uvloop"),
    *("twisted.conch", "twisted.mail", "twisted.names", "twisted.trial", "twisted.words"),
    *("twisted.internet.testing", "twisted.web.client"),
    *("twisted.plugins", "twisted.web.static", "twisted.web.test"),
    *("prometheus_client", "bcrypt", "jwt", "twisted.cred", "txredisapi", "acme"),
    *("opentelemetry", "twisted_registry.tracing"),
    *("twisted_registry.acme", "twisted_registry.tls.socket", "twisted_registry.tokens"),
    *("twisted_registry.config.reference", "twisted_registry.gc.collector"),
    *("twisted_registry.storage.s3", "twisted_registry.testing"),
}


def imported(out):
    """The modules in the output of a process."""
    (line,) = [line for line in out.splitlines() if line.startswith("imported ")]
    return set(line.split()[1:])


def heavy(modules):
    return {name for name in HEAVY if any(f"{each}.".startswith(f"{name}.") for each in modules)}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The modules of a minimal HTTP server on Twisted."""
    script = f"{PRINT_MODULES}import bare"
    folder = tmp_path_factory.mktemp("bare")
    status, out, _ = run(sys.executable, "-c", script, cwd=folder, PYTHONPATH=ROOT / "tests/bench")
    assert status == 0
    return imported(out)


def push_and_pull(server):
    """Push an image and pull it."""
    image = build_image()
    kind, digest = image.media_type, image.config.digest
    steps = [
        ("POST", f"/v2/a/blobs/uploads/?digest={digest}", image.config.read(), {}, 201),
        ("PUT", "/v2/a/manifests/latest", image.manifest.read(), {"Content-Type": kind}, 201),
        ("GET", "/v2/a/manifests/latest", None, {"Accept": kind}, 200),
        ("GET", f"/v2/a/blobs/{digest}", None, {}, 200),
    ]
    for method, target, body, headers, status in steps:
        assert server.ask(method, target, body, headers)[0].status == status


def test_a_serving_registry_has_imported_nothing_heavy(tmp_path, bare):
    command = (sys.executable, "-c", COMMAND, "serve", write_configuration(tmp_path))
    with RegistryProcess(*command, cwd=tmp_path) as server:
        push_and_pull(server)
        status, out, _ = server.stop()
    assert status == 0
    modules = imported(out)
    assert "twisted_registry.http.output" in modules
    assert heavy(modules - bare) == set()


@pytest.mark.parametrize("argument", ["--version", "--help", "help"])
def test_version_and_help_import_neither_twisted_nor_yaml(tmp_path, argument):
    status, out, _ = run(sys.executable, "-c", COMMAND, argument, cwd=tmp_path)
    assert status == 0
    found = {name.partition(".")[0] for name in imported(out)}
    assert not {"twisted", "yaml", "attr", "zope"} & found


def test_check_imports_no_twisted(tmp_path):
    path = write_configuration(tmp_path)
    status, out, _ = run(sys.executable, "-c", COMMAND, "check", path, cwd=tmp_path)
    assert status == 0
    assert not [name for name in imported(out) if name.partition(".")[0] == "twisted"]


@pytest.mark.parametrize("command", ["garbage-collect", "fsck", "retention"])
def test_a_command_imports_no_http_server(tmp_path, command):
    path = write_configuration(tmp_path)
    (tmp_path / "store").mkdir(exist_ok=True)
    _, out, _ = run(sys.executable, "-c", COMMAND, command, "--dry-run", path, cwd=tmp_path)
    modules = imported(out)
    assert "twisted_registry.app.stores" in modules
    found = [name for name in modules if name.startswith(("twisted.web", "twisted_registry.api"))]
    assert found == []
    assert "twisted_registry.app.service" not in modules
