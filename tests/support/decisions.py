"""Decisions of access controllers."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred


def decide(access, caller, accesses):
    """Return the grant of a controller that does not wait, or its error."""
    results = []
    maybeDeferred(access.authorize, caller, accesses).addBoth(results.append)
    (result,) = results
    return getattr(result, "value", result)
