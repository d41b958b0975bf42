"""The section ``log``: formats and levels of the log, and the mails that it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.http import parse_host_and_port
from twisted_registry.config.kinds import (
    Anything,
    ListOf,
    MapOf,
    Scalar,
    boolean,
    choice,
    text,
    text_list,
)
from twisted_registry.config.sections import Section, SectionBase, key, section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.document import Node, Report

LEVELS: Final = ("error", "warn", "info", "debug")


def _server_address(node: Node) -> str:
    address = values.text(node)
    found = parse_host_and_port(address)
    if not (found.port and found.host):
        raise ValueError
    return address


class AccessLog(SectionBase):
    """``log.accesslog``."""

    disabled: bool = key(
        boolean(),
        "Write no access log. Otherwise each request is a line on standard output, in Apache's"
        " combined format.",
    )


class Smtp(SectionBase):
    """``log.hooks[].options.smtp``."""

    addr: str = key(
        Scalar("HOST:PORT", _server_address),
        "The mail server. TLS is used from the beginning at port 465, and at others if the server"
        " offers STARTTLS.",
    )
    username: str = key(text(), "The user name at the mail server; empty for no login.")
    password: str = key(
        text(),
        "The password at the mail server. It is only sent over TLS, or to this machine.",
        secret=True,
    )
    insecure: bool = key(boolean(), "Do not verify the server's certificate.")

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The mail server."""
        address = parse_host_and_port(self.addr)
        return address.host, address.port or 0


class HookOptions(SectionBase):
    """``log.hooks[].options``."""

    smtp: Smtp = section(Smtp, "The mail server.")
    from_: str = key(text(), "The sender.", name="from")
    to: tuple[str, ...] = key(text_list(), "The recipients.")


class Hook(SectionBase):
    """``log.hooks[]``."""

    type: str = key(choice("mail"), "The type of the hook.", default="mail")
    disabled: bool = key(boolean(), "Ignore this entry.")
    levels: tuple[str, ...] = key(
        ListOf(
            "a list of levels",
            choice("panic", "fatal", "error", "warn", "warning", "info", "debug"),
        ),
        "The levels that are sent, if ``log.level`` includes them.",
    )
    options: HookOptions = section(HookOptions, "The options of the hook.")


class Log(SectionBase):
    """``log``."""

    level: str = key(
        choice(*LEVELS, change_case=str.lower), "The lowest level that is logged.", default="info"
    )
    formatter: str = key(
        choice("text", "json", "logstash"),
        "The format of a line; text is ``key=value`` pairs.",
        default="text",
    )
    fields: Mapping[str, object] = key(
        MapOf("a mapping", Anything()), "Fields that are added to every line."
    )
    accesslog: AccessLog = section(AccessLog, "The access log.")
    audit: str = key(
        text("a path, or stdout"),
        "The audit log: one line of JSON for each login, refusal, push, delete, token made or"
        " revoked, and change of the rules. A file, which commands write to as well and which can"
        " be rotated, or ``stdout``.",
        extension=True,
    )
    reportcaller: bool = key(
        boolean(), "Add the function and the line of code to each line: ``func`` and ``file``."
    )
    hooks: tuple[Hook, ...] = key(
        ListOf("a list of hooks", Section(Hook)),
        "Log lines that are sent by mail: the first at once, those of the next minute together.",
    )


def check_log(section: Log, report: Report) -> None:
    """Report hooks that cannot send."""
    for number, hook in enumerate(section.hooks):
        if hook.disabled:
            continue
        path, options = f"log.hooks[{number}]", hook.options
        if not options.smtp.addr:
            report.add_fault(f"{path}.options.smtp.addr", "missing", "HOST:PORT of a mail server")
        if not options.from_:
            report.add_fault(f"{path}.options.from", "missing", "the address of the sender")
        if not options.to:
            report.add_fault(f"{path}.options.to", "missing", "a list of addresses")
        if not hook.levels:
            report.add_warning(f"{path}.levels", "names no level, so no mail is sent")
