"""The log of a process, as the section ``log`` of its configuration describes it."""

from __future__ import annotations

import atexit
import os
import sys
import uuid
from typing import TYPE_CHECKING

from twisted.logger import LogPublisher

from twisted_registry import __version__
from twisted_registry.app.tracing import exporter_names
from twisted_registry.logs.context import TRACE_ID_FIELD, CallerObserver, RequestIdObserver
from twisted_registry.logs.lines import LineObserver, filter_level
from twisted_registry.workers.logs import EventSender, ProcessIdObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.logger import ILogObserver

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration


def make_configured_observer(loaded: LoadedConfiguration) -> ILogObserver:
    """Make the observer that ``log`` describes.

    Several processes add their ids to the lines, and a traced request that of its trace.
    """
    configuration = loaded.configuration
    section = configuration.log
    lines = LineObserver(
        sys.stderr,
        section.formatter,
        section.fields,
        {"instance.id": str(uuid.uuid4()), "version": __version__},
        colours=wants_colours(),
    )
    outputs = LogPublisher(lines, *make_hooks(configuration)) if section.hooks else lines
    observer = filter_level(section.level, _add_context(configuration, outputs))
    if configuration.http.workers > 1:
        observer = ProcessIdObserver(observer)
    return _with_trace_ids(observer)


def make_hooks(configuration: Configuration) -> Sequence[ILogObserver]:
    """Make the hooks of ``log``. They send what waits when the process exits."""
    hooks: list[ILogObserver] = []
    for section in configuration.log.hooks:
        if not section.disabled:
            from twisted_registry.logs.mail import MailServer, make_mail_hook  # noqa: PLC0415 - rare

            smtp = section.options.smtp
            host, port = smtp.host_and_port
            server = MailServer(
                host,
                port,
                section.options.from_,
                section.options.to,
                smtp.username,
                smtp.password,
                verify=not smtp.insecure,
            )
            hook = make_mail_hook(server, section.levels)
            _exit_calls.append(hook.close)
            hooks.append(hook)
    return hooks


_exit_calls: list[Callable[[], object]] = []


@atexit.register
def finish_logs() -> None:
    """Send what waits in hooks; called when the process exits."""
    while _exit_calls:
        _exit_calls.pop()()


def make_worker_observer(loaded: LoadedConfiguration) -> ILogObserver:
    """Make the observer of a worker, whose events go to the first process."""
    configuration = loaded.configuration
    sender = _add_context(configuration, EventSender(sys.stderr))
    return filter_level(configuration.log.level, _with_trace_ids(sender))


def _add_context(configuration: Configuration, observer: ILogObserver) -> ILogObserver:
    observer = RequestIdObserver(observer)
    return CallerObserver(observer) if configuration.log.reportcaller else observer


def _with_trace_ids(observer: ILogObserver) -> ILogObserver:
    """Return an observer that adds the ids of traces, if tracing is on and its extra is there."""
    if not exporter_names(os.environ):
        return observer
    try:
        from twisted_registry.tracing.logs import TraceIdObserver  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return observer  # the service raises a StartError
    return TraceIdObserver(observer, TRACE_ID_FIELD)


def wants_colours() -> bool:
    """Return whether a terminal is to show colours (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def logs_all_requests(configuration: Configuration) -> bool:
    """Return whether the log has a line for each request, as that of Distribution.

    On a terminal the access log stands for these lines.
    """
    section = configuration.log
    output = sys.__stdout__
    is_shown = not section.accesslog.disabled and output is not None and output.isatty()
    return section.level in {"info", "debug"} and not is_shown
