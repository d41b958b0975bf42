"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twisted_registry.testing import Registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_tests(tmp_path):
    """Run a test module with the plugin; return exit status and output."""

    def run(text, *arguments):
        (tmp_path / "test_it.py").write_text(text)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "twisted_registry.pytest_plugin"),
                *("-q", "-rs", "--strict-markers", "-W", "error", *arguments, "test_it.py"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            # The plugins of this installation are not loaded, so it makes no difference whether
            # this one is among them.
            env={
                **os.environ,
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "PYTHONPATH": str(ROOT),
                "PYTEST_ADDOPTS": "-p no:cacheprovider",
            },
        )
        return done.returncode, done.stdout + done.stderr

    return run


FIXTURES = """
import urllib.request
import pytest

def ask(registry):
    return urllib.request.urlopen(registry.url + "/v2/").read()

seen = set()

@pytest.mark.parametrize("turn", [1, 2])
def test_one_for_each_test(oci_registry, turn):
    assert ask(oci_registry) == b"{}"
    oci_registry.run(lambda: None)
    assert oci_registry not in seen
    seen.add(oci_registry)

@pytest.mark.parametrize("turn", [1, 2])
def test_one_for_the_session(oci_registry_session, turn):
    assert ask(oci_registry_session) == b"{}"
    assert seen
    seen.add(oci_registry_session)
    assert len(seen) == 3

def test_several(oci_registry_factory):
    one, two = oci_registry_factory(), oci_registry_factory(auth=("ada", "secret"))
    assert one.url != two.url
    assert (one.auth, two.auth) == (None, ("ada", "secret"))

@pytest.mark.oci_registry(auth=("ada", "secret"))
def test_options_by_marker(oci_registry):
    assert oci_registry.auth == ("ada", "secret")
"""


def test_the_fixtures(run_tests):
    status, out = run_tests(FIXTURES)
    assert "6 passed" in out, out
    assert status == 0


NO_FIXTURE = """
import sys

def test_nothing_is_imported():
    names = {name.partition(".")[0] for name in sys.modules}
    assert not names & {"twisted", "zope", "yaml", "attr"}
    found = {name for name in sys.modules if name.startswith("twisted_registry")}
    assert found == {"twisted_registry", "twisted_registry.pytest_plugin"}
"""


def test_twisted_is_not_imported_without_a_fixture(run_tests):
    status, out = run_tests(NO_FIXTURE)
    assert "1 passed" in out, out
    assert status == 0


REWRITES_ALL = """
import pytest
pytest.register_assert_rewrite("twisted_registry.testing")
"""

NOT_REWRITTEN = """
import twisted_registry.testing
from twisted_registry.testing import storage_contract, stream_contract

def rewrites(module):
    return type(module.__spec__.loader).__name__ == "AssertionRewritingHook"

def test_it():
    assert not rewrites(twisted_registry.testing)
    assert not rewrites(twisted_registry.testing.registry)
    assert rewrites(storage_contract) and rewrites(stream_contract)
"""


def test_only_the_contracts_are_rewritten(run_tests, tmp_path):
    """pytest marks all packages of an installed plugin, as the other plugin does here."""
    (tmp_path / "rewrites_all.py").write_text(REWRITES_ALL)
    status, out = run_tests(NOT_REWRITTEN, "-p", "rewrites_all")
    assert "1 passed" in out, out
    assert status == 0


EXTERNAL = """
import pytest, urllib.request

def test_clients(oci_registry, oci_registry_session, oci_registry_factory, tmp_path):
    for each in (oci_registry, oci_registry_session, oci_registry_factory()):
        assert each.url == URL
        assert each.auth == ("ada", "secret")
        assert each.port == PORT
        assert each.host in each.docker_config(tmp_path).read_text()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(each.url + "/v2/")

@pytest.mark.parametrize("name", ["run", "push_image", "hooks", "faults", "journal"])
def test_what_only_a_started_registry_can(oci_registry, name):
    getattr(oci_registry, name)
    assert False

def test_a_typo(oci_registry):
    with pytest.raises(AttributeError, match="ulr"):
        oci_registry.ulr

def test_options(oci_registry_factory):
    oci_registry_factory(readonly=True)
    assert False
"""


def test_the_same_tests_run_against_another_registry(run_tests):
    with Registry(auth=("ada", "secret")) as registry:
        text = EXTERNAL.replace("URL", repr(registry.url)).replace("PORT", str(registry.port))
        url = registry.url.replace("//", "//ada:secret@")
        status, out = run_tests(text, "--oci-registry-url", url)
    assert "2 passed, 6 skipped" in out, out
    for name in ("run", "push_image", "hooks", "faults", "journal"):
        assert f"the test uses {name}," in out
    assert "with readonly" in out
    assert status == 0


def test_a_wrong_url_is_an_error(run_tests):
    status, out = run_tests(EXTERNAL, "--oci-registry-url", "registry.example.com")
    assert "registry.example.com: expected http://HOST:PORT" in out
    assert status == 1
