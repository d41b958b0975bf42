"""The package of a reader of ``docs/embedding.rst``: its driver, access controller and listener."""

from zope.interface import implementer

from tests.testing.dict_driver import DictDriver as MyDriver
from twisted_registry import IRegistryListener
from twisted_registry.auth.access import OpenAccess


def make_driver(options, reactor):
    return MyDriver()


def make_access(options, reactor):
    return OpenAccess()


@implementer(IRegistryListener)
class Mail:
    def handle_event(self, event):
        """Send no mail."""


def make_listener(options, reactor):
    return Mail()
