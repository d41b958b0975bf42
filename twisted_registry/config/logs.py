"""The ``log`` section: what is written, how, and what goes along with every line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.config.forms import choice, boolean, text, text_list
from twisted_registry.config.kinds import Anything, ListOf, MapOf
from twisted_registry.config.sections import Section, SectionBase, key, schema, section

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("error", "warn", "info", "debug")


@schema
class AccessLog(SectionBase):
    """``log.accesslog``."""

    disabled: bool = key(
        boolean(), "Write no access log. Else one line a request goes to standard output, in the"
        " combined format of Apache.", default=False,
    )  # fmt: skip


@schema
class Smtp(SectionBase):
    """``log.hooks[].options.smtp``."""

    addr: str = key(text(), "HOST:PORT of the mail server.", default="")
    username: str = key(text(), "User name at the mail server.", default="")
    password: str = key(text(), "Password at the mail server.", default="", secret=True)
    insecure: bool = key(boolean(), "Do not check the server's certificate.", default=False)


@schema
class HookOptions(SectionBase):
    """``log.hooks[].options``."""

    smtp: Smtp = section(Smtp, "The mail server.")
    from_: str = key(text(), "The sender.", default="", name="from")
    to: tuple[str, ...] = key(text_list(), "The recipients.", default=())


@schema
class Hook(SectionBase):
    """``log.hooks[]``."""

    type: str = key(choice("mail"), "What the hook does.", default="mail")
    disabled: bool = key(boolean(), "Leave the hook out.", default=False)
    levels: tuple[str, ...] = key(
        ListOf(
            "a list of levels",
            choice("panic", "fatal", "error", "warn", "warning", "info", "debug"),
        ),
        "The levels that it acts on.", default=(),
    )  # fmt: skip
    options: HookOptions = section(HookOptions, "How to send.")


@schema
class Log(SectionBase):
    """``log``."""

    level: str = key(
        choice(*LEVELS, ignore_case=True), "The least level that is written.", default="info"
    )
    formatter: str = key(
        choice("text", "json", "logstash"), "The shape of a line: text is ``key=value`` pairs.",
        default="text",
    )  # fmt: skip
    fields: Mapping[str, object] = key(
        MapOf("a mapping", Anything()), "Fields that are added to every line.", default={}
    )
    accesslog: AccessLog = section(AccessLog, "The log of requests.")
    reportcaller: bool = key(boolean(), "Accepted; has no effect.", default=False)
    hooks: tuple[Hook, ...] = key(
        ListOf("a list of hooks", Section("a section", Hook)),
        "Mail for log lines. Not served yet: warned of, and left out.", default=(),
    )  # fmt: skip
