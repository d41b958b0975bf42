"""How many examples hypothesis makes for properties that need more or fewer than others."""

from __future__ import annotations

from hypothesis import settings


def examples(fast: int) -> int:
    """Return a number for ``max_examples``, which otherwise would hold in each profile.

    :param fast: the number of examples in the profile ``fast``; other profiles have their own.
    """
    chosen = settings().max_examples
    return fast if chosen == settings.get_profile("fast").max_examples else chosen
