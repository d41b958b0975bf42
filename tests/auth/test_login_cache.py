"""The cache of recent logins."""

from __future__ import annotations

import gc
from types import FunctionType, MethodType, ModuleType

from twisted.internet.task import Clock

from twisted_registry.auth.access import Login
from twisted_registry.auth.interfaces import Identity
from twisted_registry.auth.login_cache import LoginCache

LOGIN = Login(Identity("me"))


def test_login_is_found_until_it_expires():
    clock = Clock()
    cache = LoginCache(clock)
    cache.store_login("Basic x", LOGIN, 10)
    assert cache.find_login("Basic x") is LOGIN
    assert cache.find_login("Basic y") is None
    clock.advance(9.9)
    assert cache.find_login("Basic x") is LOGIN
    clock.advance(0.1)
    assert cache.find_login("Basic x") is None


def test_other_version_removes_the_login():
    cache = LoginCache(Clock())
    cache.store_login("Basic x", LOGIN, 10, version=1)
    assert cache.find_login("Basic x", 1) is LOGIN
    assert cache.find_login("Basic x", 2) is None
    assert cache.find_login("Basic x", 1) is None


def test_least_recently_used_login_is_evicted():
    cache = LoginCache(Clock(), max_entries=2)
    for name in ("a", "b"):
        cache.store_login(name, LOGIN, 10)
    cache.find_login("a")
    cache.store_login("c", LOGIN, 10)
    assert [cache.find_login(name) for name in ("a", "b", "c")] == [LOGIN, None, LOGIN]


def test_expired_logins_do_not_stay_in_memory():
    clock = Clock()
    cache = LoginCache(clock)
    for name in ("a", "b"):
        cache.store_login(name, Login(Identity(name)), 10)
    clock.advance(10)
    cache.store_login("c", LOGIN, 20)
    assert [each.identity for each in reachable(cache) if isinstance(each, Login)] == [
        LOGIN.identity
    ]


def test_use_is_reported_as_found_or_verified():
    uses = []
    cache = LoginCache(Clock(), on_use=uses.append)
    assert cache.find_login("Basic x") is None
    cache.store_login("Basic x", LOGIN, 10)
    cache.find_login("Basic x")
    assert uses == [False, True]


def reachable(root):
    """All objects that an object refers to, without code and types."""
    found, waiting = {}, [root]
    while waiting:
        each = waiting.pop()
        if id(each) not in found and not isinstance(
            each, type | ModuleType | FunctionType | MethodType
        ):
            found[id(each)] = each
            waiting += gc.get_referents(each)
    return list(found.values())


def test_credentials_are_not_kept():
    cache = LoginCache(Clock())
    cache.store_login("Bearer " + "c2Vj" * 8, LOGIN, 10)
    assert cache.find_login("Bearer " + "c2Vj" * 8) is LOGIN
    kept = reachable(cache)
    assert any(each is LOGIN for each in kept)
    assert not [each for each in kept if isinstance(each, str) and "c2Vj" in each]
    assert not [each for each in kept if isinstance(each, bytes) and b"c2Vj" in each]
