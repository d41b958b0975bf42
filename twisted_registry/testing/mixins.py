"""A mixin for test cases of unittest and trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from twisted_registry.testing.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class RegistryMixin:
    """Gives each test a registry of its own.

    ::

        class PushTests(RegistryMixin, unittest.TestCase):
            registry_options = {"auth": ("ada", "secret")}

            def test_push(self):
                push(self.registry.url, self.registry.auth)

    Works with :class:`unittest.TestCase`, its asynchronous sibling, and those of
    :mod:`twisted.trial.unittest`. It needs no ``setUp``: a test that does not use the registry
    starts none.

    :cvar registry_options: the options of :class:`~twisted_registry.testing.registry.Registry`.
    """

    registry_options: ClassVar[Mapping[str, Any]] = {}
    #: A method of the test case.
    addCleanup: Callable[..., object]
    _registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        """The registry of the test, which starts with the first use and stops with the test."""
        if self._registry is None:
            self._registry = Registry(**self.registry_options).start()
            self.addCleanup(self._stop_registry)
        return self._registry

    def _stop_registry(self) -> None:
        registry, self._registry = self._registry, None
        if registry is not None:
            registry.stop()
