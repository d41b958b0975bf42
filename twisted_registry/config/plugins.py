"""Parts that other packages provide: ``storage.plugin``, ``auth.plugin`` and ``listeners``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.config import values
from twisted_registry.config.kinds import Anything, MapOf, Scalar
from twisted_registry.config.sections import SectionBase, key

if TYPE_CHECKING:
    from collections.abc import Mapping


class Plugin(SectionBase):
    """A part that an installed package provides by an entry point."""

    name: str = key(
        Scalar("a name", values.nonempty_text), "The name of the entry point.", required=True
    )
    options: Mapping[str, object] = key(
        MapOf("a section", Anything()),
        "Its options, as the package documents them.",
        secret=True,
    )
