"""Drivers, access controllers and listeners of other packages, found by entry points."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor

from twisted_registry import ConfigurationError, RegistryService, StartError
from twisted_registry.testing import AsyncRegistry

#: A package with one plugin of each kind.
MODULE = """
from twisted.internet.defer import succeed
from zope.interface import implementer
from twisted_registry import IAccessController, IRegistryListener
from twisted_registry.auth.access import OpenGrant
from twisted_registry.auth.interfaces import IClosableAccessController
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.storage.memory import MemoryDriver

made, events = [], []

def make_driver(options, reactor):
    made.append(("driver", options))
    return MemoryDriver(reactor)

@implementer(IAccessController)
class Access:
    def authorize(self, caller, accesses):
        if caller.authorization != "let me in":
            raise RegistryError(ErrorCode.DENIED)
        return OpenGrant()

@implementer(IClosableAccessController)
class ClosableAccess(Access):
    def close(self):
        made.append(("closed", {}))
        return succeed(None)

def make_access(options, reactor):
    made.append(("access", options))
    return ClosableAccess() if options.get("closable") else Access()

@implementer(IRegistryListener)
class Listener:
    def __init__(self, options, reactor):
        self.name = options["name"]
    def handle_event(self, event):
        events.append((self.name, event.action, event.kind))

def make_nothing(options, reactor):
    return None
"""
ENTRY_POINTS = """
[twisted_registry.storage]
mine = {module}:make_driver
nothing = {module}:make_nothing
absent = {module}:no_such_function

[twisted_registry.auth]
mine = {module}:make_access

[twisted_registry.listeners]
mine = {module}:Listener
"""
_numbers = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install the package; return its module."""
    name = f"registry_plugins_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(module=name))
    monkeypatch.syspath_prepend(tmp_path)
    return __import__(name)


async def status(method, url, **more):
    response = await treq.request(method, url, persistent=False, **more)
    await response.content()
    return response.code


@pytest_twisted.ensureDeferred
async def test_plugins_serve(package):
    config = {
        "storage": {"plugin": {"name": "mine", "options": {"size": 3}}},
        "auth": {"plugin": {"name": "mine", "options": {"closable": True}}},
        "listeners": [
            {"name": "mine", "options": {"name": "one"}},
            {"name": "mine", "options": {"name": "two"}},
        ],
    }
    async with AsyncRegistry(reactor, config=config) as registry:
        digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
        begin = f"{registry.url}/v2/a/blobs/uploads/?digest={digest}"
        assert await status("POST", begin) == 403
        headers = {"Authorization": "let me in"}
        assert await status("POST", begin, headers=headers) == 201
    assert package.made == [
        ("driver", {"size": 3}),
        ("access", {"closable": True}),
        ("closed", {}),
    ]
    assert package.events == [("one", "push", "blob"), ("two", "push", "blob")]


@pytest_twisted.ensureDeferred
async def test_an_access_controller_need_not_be_closable(package):
    config = {"auth": {"plugin": {"name": "mine"}}}
    async with AsyncRegistry(reactor, config=config) as registry:
        assert await status("GET", f"{registry.url}/v2/") == 403
    assert package.made == [("access", {})]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "other",
            "the entry point 'other' in the group twisted_registry.storage; found absent, mine,",
        ),
        ("nothing", "make_nothing returned None, which is no IStorageDriver"),
        ("absent", "no_such_function failed: AttributeError: "),
    ],
)
@pytest.mark.usefixtures("package")
def test_a_plugin_that_cannot_be_used_is_a_start_error(name, expected):
    with pytest.raises(StartError) as raised:
        RegistryService({"version": 0.1, "storage": {"plugin": {"name": name}}}, reactor=reactor)
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"storage": {"plugin": {}}}, "storage.plugin.name: this key is required"),
        (
            {"auth": {"plugin": {"name": "mine"}}, "access": {"anonymous": ["pull"]}},
            "access: cannot be used with auth.plugin",
        ),
        (
            {"auth": {"plugin": {"name": "mine"}, "silly": {"realm": "a", "service": "b"}}},
            "auth: got silly, plugin, expected one of them",
        ),
        ({"listeners": [{"nmae": "mine"}]}, "listeners[0].nmae: unknown key"),
    ],
)
def test_a_wrong_configuration(config, expected):
    document = {"version": 0.1, "storage": "inmemory", **config}
    with pytest.raises(ConfigurationError) as raised:
        RegistryService(document, reactor=reactor)
    assert any(line.startswith(expected) for line in raised.value.lines()), raised.value.lines()
