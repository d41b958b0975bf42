"""The log of a process, as the section ``log`` of its configuration describes it."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from twisted.logger import LogPublisher

from twisted_registry import __version__
from twisted_registry.app.tracing import exporter_names
from twisted_registry.logs.context import (
    INSTANCE_ID,
    TRACE_ID_FIELD,
    CallerObserver,
    RequestIdObserver,
)
from twisted_registry.logs.lines import LineObserver, ReplaceableObserver, filter_level
from twisted_registry.workers.logs import EventSender, ProcessIdObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.logger import ILogObserver

    from twisted_registry.config.log import Hook
    from twisted_registry.config.schema import Configuration
    from twisted_registry.logs.mail import MailServer


class ProcessLog:
    """The log of a process, as the section ``log`` of a configuration says.

    :ivar observer: writes the events.
    """

    def __init__(
        self,
        configuration: Configuration,
        make_observer: Callable[[Configuration], ILogObserver],
        *,
        has_requests: bool = True,
    ) -> None:
        """Make the log.

        :param make_observer: makes the observer that a configuration describes.
        :param has_requests: whether the log can have a line for each request.
        """
        self._make_observer = make_observer
        self._has_requests = has_requests
        self.observer = ReplaceableObserver(make_observer(configuration))

    def use(self, configuration: Configuration) -> None:
        """Write further events as another configuration says."""
        self.observer.observer = self._make_observer(configuration)

    def has_all_requests(self, configuration: Configuration) -> bool:
        """Return whether the log has a line for each request, by a configuration."""
        return self._has_requests and logs_all_requests(configuration)


def make_process_log(configuration: Configuration) -> ProcessLog:
    """Make the log of the first process, on standard error.

    Several processes add their ids to the lines, and a traced request that of its trace.
    """
    process_fields = {"instance.id": INSTANCE_ID, "version": __version__}
    hooks = _make_hooks(configuration)
    goes_to_journal = is_journal(sys.stderr, os.environ)

    def make_observer(configuration: Configuration) -> ILogObserver:
        section = configuration.log
        lines = LineObserver(
            *(sys.stderr, section.formatter, section.fields, process_fields),
            colours=wants_colours(),
            priorities=goes_to_journal,
        )
        outputs = LogPublisher(lines, *hooks) if hooks else lines
        observer = filter_level(section.level, _add_context(configuration, outputs))
        if configuration.http.workers > 1:
            observer = ProcessIdObserver(observer)
        return _with_trace_ids(observer)

    return ProcessLog(configuration, make_observer)


def make_hooks_log(configuration: Configuration) -> ProcessLog:
    """Make a log that has nothing but the hooks, beside a log that twistd writes."""
    hooks = _make_hooks(configuration)
    return ProcessLog(
        configuration,
        lambda changed: filter_level(changed.log.level, LogPublisher(*hooks)),
        has_requests=False,
    )


def _make_hooks(configuration: Configuration) -> Sequence[ILogObserver]:
    """Make the hooks of ``log``. They send what waits when the process exits."""
    hooks: list[ILogObserver] = []
    for section in configuration.log.hooks:
        if not section.disabled:
            from twisted_registry.logs.mail import make_mail_hook  # noqa: PLC0415 - rare

            hook = make_mail_hook(make_mail_server(section), section.levels)
            _exit_calls.append(hook.close)
            hooks.append(hook)
    return hooks


def make_mail_server(hook: Hook, **options: Any) -> MailServer:
    """Make the mail server of a hook.

    :param options: further attributes of the server.
    """
    from twisted_registry.logs.mail import MailServer  # noqa: PLC0415 - rare

    smtp = hook.options.smtp
    host, port = smtp.host_and_port
    return MailServer(
        *(host, port, hook.options.from_, hook.options.to, smtp.username, smtp.password),
        verify=not smtp.insecure,
        **options,
    )


_exit_calls: list[Callable[[], object]] = []


@atexit.register
def finish_logs() -> None:
    """Send what waits in hooks; called when the process exits."""
    while _exit_calls:
        _exit_calls.pop()()


def make_worker_log(configuration: Configuration) -> ProcessLog:
    """Make the log of a worker, whose events go to the first process."""

    def make_observer(configuration: Configuration) -> ILogObserver:
        sender = _add_context(configuration, EventSender(sys.stderr))
        return filter_level(configuration.log.level, _with_trace_ids(sender))

    return ProcessLog(configuration, make_observer)


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


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether a stream goes to the journal of systemd, which reads priorities.

    :param environ: has JOURNAL_STREAM, the device and inode of the journal's stream.
    """
    if "JOURNAL_STREAM" not in environ:
        return False
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return False
    return environ["JOURNAL_STREAM"] == f"{status.st_dev}:{status.st_ino}"


def logs_all_requests(configuration: Configuration) -> bool:
    """Return whether the log has a line for each request, as that of Distribution.

    On a terminal the access log stands for these lines.
    """
    section = configuration.log
    output = sys.__stdout__
    is_shown = not section.accesslog.disabled and output is not None and output.isatty()
    return section.level in {"info", "debug"} and not is_shown
