"""The supervisor over a clock, with processes that only exist in the test."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_registry.config.loading import load_text
from twisted_registry.tls.interfaces import CertificateBundle
from twisted_registry.workers.handover import (
    ABORT_MESSAGE,
    CONTROL_FD,
    LISTENER_FD,
    STOP_MESSAGE,
    TABLE_FD,
    Handover,
    Question,
    encode_message,
)
from twisted_registry.workers.port import ProcessTable
from twisted_registry.workers.supervisor import WorkerSupervisor

TEXT = """
version: 0.1
storage: {filesystem: {rootdirectory: /x}}
http: {workers: 3, draintimeout: 20s}
"""


class Process:
    """The transport of a process that was started."""

    def __init__(self, pid, protocol, child_fds, environ):
        self.pid = pid
        self.protocol = protocol
        self.child_fds = child_fds
        self.environ = environ
        self.written = b""
        self.signals = []
        protocol.makeConnection(self)

    def writeToChild(self, descriptor, data):
        assert descriptor == CONTROL_FD
        self.written += data

    def signalProcess(self, name):
        self.signals.append(name)

    def end(self, status=0):
        reason = ProcessTerminated(status) if status else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))

    def handover(self):
        reading, writing = os.pipe()
        os.write(writing, self.written)
        os.close(writing)
        made = Handover.read(reading)
        assert os.read(reading, 100) in {b"", encode_message(STOP_MESSAGE)}
        os.close(reading)
        return made


@implementer(IReactorProcess)
class Reactor(Clock):
    def __init__(self):
        super().__init__()
        self.processes = []
        self.refuse = False

    def callWhenRunning(self, function):
        self.callLater(0, function)

    def spawnProcess(
        self, processProtocol, executable, args=(), env=None, path=None, uid=None, gid=None,
        usePTY=False, childFDs=None,
    ):  # fmt: skip
        if self.refuse:
            raise OSError(11, "Resource temporarily unavailable")
        assert executable == args[0] == sys.executable
        process = Process(1000 + len(self.processes), processProtocol, childFDs, env)
        self.processes.append(process)


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def table():
    made = ProcessTable.create(3)
    made.register()
    yield made
    made.close()


@pytest.fixture
def reactor():
    made = Reactor()
    verifyObject(IReactorProcess, made)
    return made


@pytest.fixture
def workers(reactor, listening, table, log_lines):
    made = WorkerSupervisor(reactor, load_text(TEXT, {}), listening, table, {"PATH": "/bin"})
    made.startService()
    assert not reactor.processes  # the reactor does not run yet
    reactor.advance(0)
    return made


def test_all_workers_are_started_with_handover_and_descriptors(workers, reactor, listening, table):
    first, second = reactor.processes
    assert [process.handover().number for process in (first, second)] == [1, 2]
    assert first.handover().loaded == load_text(TEXT, {})
    assert first.child_fds[1] == 1
    assert first.child_fds[2] == "r"
    assert first.child_fds[LISTENER_FD] == listening.fileno()
    assert first.child_fds[TABLE_FD] == table.fileno()
    assert first.environ["PATH"] == "/bin"


def test_a_worker_that_ends_is_replaced(workers, reactor, table, log_lines):
    first, _ = reactor.processes
    theirs = ProcessTable(os.dup(table.fileno()), 3, 1)
    theirs.register()
    table.publish(1)
    assert table.others_have_fewer()
    reactor.advance(60)
    first.end(status=1)
    assert not table.others_have_fewer()
    reactor.advance(0.09)
    assert len(reactor.processes) == 2
    reactor.advance(0.02)
    assert [process.handover().number for process in reactor.processes] == [1, 2, 1]
    (line,) = [line for line in log_lines if "has ended" in line]
    assert line.startswith("worker 1000 has ended: ")
    theirs.close()


def test_the_restart_delay_doubles_while_workers_end_early(workers, reactor, log_lines):
    def waits(count):
        seen = []
        for _ in range(count):
            number = len(reactor.processes)
            reactor.processes[-1].end()
            (call,) = reactor.getDelayedCalls()
            seen.append(round(call.getTime() - reactor.seconds(), 3))
            reactor.advance(seen[-1])
            assert len(reactor.processes) == number + 1
        return seen

    assert waits(11) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    reactor.advance(11)
    assert waits(2) == [0.1, 0.2]
    assert any("another one starts in 0.8 s" in line for line in log_lines)


def test_a_failed_start_is_retried(reactor, listening, table, log_lines):
    workers = WorkerSupervisor(reactor, load_text(TEXT, {}), listening, table)
    reactor.refuse = True
    before = len(list(Path("/proc/self/fd").iterdir()))
    workers.startService()
    reactor.advance(0)
    assert sum("cannot start a worker: Resource temporarily" in line for line in log_lines) == 2
    reactor.refuse = False
    reactor.advance(0.1)
    assert len(reactor.processes) == 2
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_all_workers_get_the_current_certificate(workers, reactor):
    first, second = reactor.processes
    old, new = CertificateBundle(b"old", b"k"), CertificateBundle(b"new", b"k")
    assert first.handover().bundle is None
    second.end()
    workers.set_certificate(old)
    workers.set_certificate(new)
    assert first.written.endswith(encode_message(old) + encode_message(new))
    reactor.advance(0.1)
    assert reactor.processes[-1].handover().bundle == new


def test_a_stop_waits_for_all_workers(workers, reactor):
    first, second = reactor.processes
    done = []
    workers.stopService().addCallback(done.append)
    assert all(
        process.written.endswith(encode_message(STOP_MESSAGE)) for process in (first, second)
    )
    first.end()
    reactor.advance(24)
    assert not done
    second.end(status=1)
    assert done == [None]
    assert not reactor.getDelayedCalls()
    assert len(reactor.processes) == 2


def test_a_worker_that_does_not_stop_is_killed(workers, reactor, log_lines):
    first, second = reactor.processes
    done = []
    workers.stopService().addCallback(done.append)
    first.end()
    reactor.advance(25)
    assert (first.signals, second.signals) == ([], ["KILL"])
    assert any("worker 1001 did not end in time" in line for line in log_lines)
    assert not done
    second.end(status=1)
    assert done == [None]


def test_workers_are_asked_again_when_all_have_answered(workers, reactor, table, log_lines):
    first, second = reactor.processes
    others = [ProcessTable(os.dup(table.fileno()), 3, number) for number in (1, 2)]
    assert workers.are_alive()
    assert first.written.endswith(encode_message(Question(1)))
    assert second.written.endswith(encode_message(Question(1)))
    others[0].answer(1)
    assert not workers.are_alive()
    assert log_lines[-1] == "worker 1001 does not answer"
    assert first.written.endswith(encode_message(Question(1)))
    others[1].answer(1)
    assert workers.are_alive()
    assert second.written.endswith(encode_message(Question(2)))
    # A process that has just been started was not asked yet.
    second.end(status=1)
    others[0].answer(2)
    assert workers.are_alive()
    others[0].answer(3)
    reactor.advance(1)
    assert len(reactor.processes) == 3
    assert workers.are_alive()
    assert not workers.are_alive()
    for each in others:
        each.close()


def test_cut_requests_end_the_workers_soon(workers, reactor, log_lines):
    first, second = reactor.processes
    done = []
    workers.stopService().addCallback(done.append)
    workers.abort_requests()
    messages = encode_message(STOP_MESSAGE) + encode_message(ABORT_MESSAGE)
    assert first.written.endswith(messages)
    assert second.written.endswith(messages)
    first.end()
    reactor.advance(2)
    assert (first.signals, second.signals) == ([], ["KILL"])
    assert any("worker 1001 did not end in time" in line for line in log_lines)
    second.end(status=1)
    assert done == [None]


def test_a_stop_cancels_a_scheduled_replacement(workers, reactor):
    first, second = reactor.processes
    first.end()
    done = []
    workers.stopService().addCallback(done.append)
    second.end()
    assert done == [None]
    assert not reactor.getDelayedCalls()


def test_a_stop_before_the_reactor_runs_starts_no_worker(reactor, listening, table):
    workers = WorkerSupervisor(reactor, load_text(TEXT, {}), listening, table)
    workers.startService()
    done = []
    workers.stopService().addCallback(done.append)
    reactor.advance(0)
    assert done == [None]
    assert not reactor.processes


def test_output_of_workers_is_logged_line_by_line(workers, reactor, log_lines):
    process, _ = reactor.processes
    process.protocol.childDataReceived(2, b"half a ")
    assert "half a " not in log_lines
    process.protocol.childDataReceived(2, b"line\nlast words")
    assert log_lines[-1] == "half a line"
    process.end(status=1)
    assert "last words" in log_lines
