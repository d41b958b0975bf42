"""How long hypothesis looks: ``--hypothesis-profile=nightly`` for twenty times as long."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a busy machine is not a slow program.
settings.register_profile("fast", deadline=None)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile("fast")
