"""The hint at a name that was probably meant. Apart, because it is needed without YAML."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The least similarity. With 0.6, that of difflib, ``PORT`` would be ``REPORTING``.
_MIN_RATIO = 0.65


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean NEAR?`` for the most similar known name; empty if none is similar."""
    near = most_similar(name, known)
    return f"; did you mean {near}?" if near else ""


def most_similar(name: str, known: Iterable[str]) -> str:
    """Return the most similar known name; empty if none is similar."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=_MIN_RATIO)), "")
