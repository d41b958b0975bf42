"""The pytest plugin: fixtures that start registries, and the option ``--oci-registry-url``.

pytest finds it by its entry point. It imports nothing of Twisted or of the registry until a test
uses one of its fixtures.

=========================  =========================================================================
``oci_registry``           a registry for one test; ``@pytest.mark.oci_registry(auth=True)`` sets
                           options of :class:`~twisted_registry.testing.registry.Registry`
``oci_registry_session``   one registry for all tests of the run
``oci_registry_factory``   a function that takes the options, and returns a registry that serves
                           until the end of the test
=========================  =========================================================================

With ``--oci-registry-url URL`` the fixtures describe the registry at that URL, and start none.
Tests that need what only a registry of this process can do are skipped.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec

    from twisted_registry.testing import Registry

_OPTION = "--oci-registry-url"
_MARKER = "oci_registry"


class _PackageFinder:
    """Finds the modules of this package before pytest does, except the contracts of drivers.

    pytest rewrites the assertions of all modules of a distribution that has a plugin, and compiles
    them again for that. Only those of the contracts are part of tests.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if name.startswith("twisted_registry.") and not name.endswith("_contract"):
            return PathFinder.find_spec(name, path, target)
        return None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Import this package as without pytest from now on."""
    sys.meta_path.insert(0, _PackageFinder)


def pytest_unconfigure() -> None:
    """Leave imports to Python again."""
    if _PackageFinder in sys.meta_path:
        sys.meta_path.remove(_PackageFinder)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("oci-registry", "OCI registries").addoption(
        _OPTION,
        metavar="URL",
        help="run the tests that use oci_registry fixtures against the registry at this URL"
        " (http://user:password@host:port) in place of one that is started",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers", f"{_MARKER}(**options): the options of the registry of the fixture oci_registry"
    )


@pytest.fixture
def oci_registry(
    request: pytest.FixtureRequest, oci_registry_factory: Callable[..., Registry]
) -> Registry:
    """Return a registry for one test, with the options of the marker ``oci_registry``."""
    marker = request.node.get_closest_marker(_MARKER)
    return oci_registry_factory(**({} if marker is None else marker.kwargs))


@pytest.fixture(scope="session")
def oci_registry_session(pytestconfig: pytest.Config) -> Iterator[Registry]:
    """Return one registry for all tests of the run."""
    with ExitStack() as started:
        yield _make(pytestconfig.getoption(_OPTION), started, {})


@pytest.fixture
def oci_registry_factory(pytestconfig: pytest.Config) -> Iterator[Callable[..., Registry]]:
    """Return a function that starts a registry until the end of the test.

    It takes the options of :class:`~twisted_registry.testing.registry.Registry`.
    """
    with ExitStack() as started:
        yield lambda **options: _make(pytestconfig.getoption(_OPTION), started, options)


def _make(url: str | None, started: ExitStack, options: dict[str, Any]) -> Registry:
    if url is None:
        from twisted_registry.testing import Registry  # noqa: PLC0415 - imports Twisted

        return started.enter_context(Registry(**options))
    if options:
        pytest.skip(f"{_OPTION}: the test starts a registry with {', '.join(options)}")
    return cast("Registry", _ExternalRegistry(url))


class _ExternalRegistry:
    """A registry that was not started here: what clients need, and a skip for everything else."""

    def __init__(self, url: str) -> None:
        from twisted_registry.testing.clients import ClientSettings  # noqa: PLC0415

        self.client_settings = ClientSettings.parse(url)

    def __getattr__(self, name: str) -> Any:
        from twisted_registry.testing import Registry  # noqa: PLC0415

        if name in _CLIENT_ATTRIBUTES:
            return getattr(self.client_settings, name)
        if hasattr(Registry, name) or name in _STARTED_ATTRIBUTES:
            pytest.skip(f"{_OPTION}: the test uses {name}, which only a started registry has")
        raise AttributeError(name)


#: What tests may use of any registry.
_CLIENT_ATTRIBUTES = frozenset(
    {"url", "host", "port", "auth", "ca_file", "ssl_context", "docker_config"}
)
#: Attributes of the instances of Registry that its class does not have.
_STARTED_ATTRIBUTES = frozenset({"faults", "hooks", "journal"})
