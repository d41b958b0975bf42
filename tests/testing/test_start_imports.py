"""What a registry in memory imports: little, and nothing when it starts and serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Modules that take long to import, and that a registry without options does not need.
NOT_NEEDED = {
    *("treq", "twisted.web.client", "twisted.web.template", "twisted.web.static"),
    *("twisted.conch", "twisted.names", "twisted.plugins"),
    *("acme", "botocore", "jwt", "prometheus_client", "sqlite3", "txredisapi", "yaml"),
    *("unittest", "multiprocessing", "importlib.metadata", "pytest"),
    *(
        f"twisted_registry.{name}"
        for name in ("acme", "commands", "integrity", "tokens", "workers")
    ),
    *("twisted_registry.auth.basic", "twisted_registry.config.parsing"),
    *("twisted_registry.app.access", "twisted_registry.app.debug", "twisted_registry.app.plugins"),
    *("twisted_registry.app.s3", "twisted_registry.app.tls", "twisted_registry.gc.collector"),
    *("twisted_registry.maintenance.retention", "twisted_registry.metrics.counts"),
    *("twisted_registry.storage.filesystem.driver", "twisted_registry.storage.s3"),
    *("twisted_registry.testing.storage_contract", "twisted_registry.tls.authority"),
    *("twisted_registry.tls.context", "twisted_registry.tls.socket"),
}
SCRIPT = """
import sys, urllib.request
from twisted_registry.testing import Registry, build_image

imported = set(sys.modules)
print(*imported)
with Registry() as registry:
    assert urllib.request.urlopen(registry.url + "/v2/").read() == b"{}"
    registry.push_image("app:1", build_image(files={"a": "1"}))
print(*(set(sys.modules) - imported))
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """The modules that are imported with ``Registry``, and those that its use imports."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path_factory.mktemp("imports"),
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    first, later = done.stdout.splitlines()
    return first.split(), later.split()


def test_nothing_is_imported_that_a_first_registry_does_not_need(imports):
    modules = imports[0]
    assert "twisted_registry.app.service" in modules
    found = {name for name in NOT_NEEDED if any(f"{m}.".startswith(f"{name}.") for m in modules)}
    assert found == set()


def test_start_and_requests_import_nothing_of_the_package(imports):
    """The first request would wait for it."""
    ours = ("twisted_registry", "twisted.web", "cryptography", "yaml")
    assert [name for name in imports[1] if name.startswith(ours)] == []
