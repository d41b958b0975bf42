"""``http.tls.clientusers``: users by the certificates of clients. Distribution has no such key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.faults import quote_value
from twisted_registry.config.forms import choice, text, text_list
from twisted_registry.config.kinds import Scalar
from twisted_registry.config.sections import SectionBase, key, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.config.faults import Report

_GROUP: Final = re.compile(r"\{(\d)\}")


@schema
class ClientUser(SectionBase):
    """``http.tls.clientusers[]``: which certificates are which user's."""

    source: str = key(
        choice("cn", "dns", "email", "uri"),
        "What is looked at: a common name of the subject, or an alternative name.",
        default="cn", name="from", extension=True,
    )  # fmt: skip
    pattern: re.Pattern[str] = key(
        Scalar("a regular expression", values.pattern),
        "What it has to be, from its beginning to its end.", default=re.compile(".+"), extension=True,
    )  # fmt: skip
    organization: str = key(
        text(), "An organization (``O``) that the subject has to name besides.", default="",
        extension=True,
    )  # fmt: skip
    user: str = key(
        text(), "What the user is called. ``{0}`` is what was looked at, ``{1}`` the first group"
        " of the pattern.", default="{0}", extension=True,
    )  # fmt: skip
    groups: tuple[str, ...] = key(
        text_list("a list of groups"), "The groups of the user, for ``access``.", default=(), extension=True
    )


def check_client_users(users: Sequence[ClientUser], report: Report) -> None:
    """Report groups that a pattern does not have."""
    for index, rule in enumerate(users):
        wanted = max((int(found) for found in _GROUP.findall(rule.user)), default=0)
        if wanted > rule.pattern.groups:
            report.fault(f"http.tls.clientusers[{index}].user", f"got {quote_value(rule.user)}",
                         f"no group above {rule.pattern.groups}, which is all that the pattern"
                         " has")  # fmt: skip
        if not rule.user:
            report.fault(f"http.tls.clientusers[{index}].user", "got nothing", "a name")
