"""The command ``stats --watch``."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from itertools import islice

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.commands.image_push import push
from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    environment,
    free_port,
    run,
    write_configuration,
)
from twisted_registry.commands.stats_watch import Watch
from twisted_registry.config.loading import load_mapping
from twisted_registry.oci.errors import ErrorCode, RegistryError

STATS = (sys.executable, "-m", "twisted_registry", "stats")


class Terminal(io.StringIO):
    def isatty(self):
        return True


class WatchedStore:
    """A watch whose walks through the store the test ends."""

    def __init__(self, debug=None, out=None):
        self.clock, self.out, self.walks = Clock(), out or io.StringIO(), []
        http = {"addr": "127.0.0.1:0", **({} if debug is None else {"debug": debug})}
        document = {"version": 0.1, "storage": "inmemory", "http": http}
        configuration = load_mapping(document, {}).configuration
        watch = Watch(configuration, self.out, self.clock, self.describe, 5.0)
        self.running = Deferred.fromCoroutine(watch.run())

    def describe(self):
        self.walks.append(Deferred())
        return self.walks[-1]

    def next_block(self):
        """What is printed at the next interval."""
        self.out.truncate(self.out.seek(0))
        self.clock.advance(5)
        return self.out.getvalue()

    def stop(self):
        ended = []
        self.running.addCallback(ended.append)
        self.running.cancel()
        assert ended == [None]


@pytest.mark.parametrize(
    ("debug", "reason"),
    [
        (None, "http.debug.addr is not set"),
        ({"addr": ":5001"}, "http.debug.prometheus.enabled is not set"),
        (
            {"addr": "127.0.0.1:0", "prometheus": {"enabled": True}},
            "http.debug.addr: 127.0.0.1:0 has no port or Unix socket to connect to",
        ),
    ],
)
def test_it_says_what_is_missing_for_the_activity(debug, reason):
    watched = WatchedStore(debug)
    assert watched.out.getvalue() == (
        f"1970-01-01T00:00:00Z\nno activity: {reason}\n\nreading the store ...\n\n"
    )
    watched.stop()


def test_the_store_is_read_again_after_a_while_and_not_at_each_block():
    watched = WatchedStore()
    watched.clock.advance(10)
    watched.walks.pop().callback("the store\n")
    assert watched.next_block().endswith("\n\nthe store\n\n")
    for _ in range(39):
        assert watched.walks == []
        watched.next_block()
    (walk,) = watched.walks
    walk.errback(RegistryError(ErrorCode.UNAVAILABLE, message="the disk is away"))
    assert "the store cannot be read: UNAVAILABLE: the disk is away\n" in watched.next_block()
    watched.stop()


def test_a_walk_under_way_ends_with_the_watch():
    watched = WatchedStore()
    watched.stop()
    (walk,) = watched.walks
    assert walk.called


def test_a_terminal_shows_the_last_block_only():
    watched = WatchedStore(out=Terminal())
    assert watched.next_block().startswith("\x1b[H\x1b[2J1970-01-01T00:00:05Z\n")
    watched.stop()


@pytest.mark.parametrize("addr", ["127.0.0.1:PORT", "unix:debug.sock"])
def test_the_activity_of_a_running_registry_is_shown_until_an_interrupt(tmp_path, addr):
    addr = addr.replace("PORT", str(free_port()))
    debug = f"  debug: {{{{addr: '{addr}', prometheus: {{{{enabled: true}}}}}}}}\n"
    path = write_configuration(tmp_path, f"{CONFIGURATION}{debug}")
    command = [*STATS, "--watch", "--interval", "0.2s", path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        push(server, "v1", b"layer")
        with subprocess.Popen(command, cwd=tmp_path, env=environment(), **pipes) as watching:
            shown = set()
            for line in islice(watching.stdout, 2000):
                shown.add(" ".join(line.split()[:2]))
                # Of the store, and of the second reading of the metrics.
                if {"unreferenced 0", "in flight"} <= shown:
                    break
            watching.send_signal(signal.SIGINT)
            _, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, "")
    assert {"unreferenced 0", "in flight", "activity: in"} <= shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--watch", "--json"), "--watch prints text; leave --json out"),
        (("--watch", "--interval", "0"), "expected a duration such as 5s"),
        (("--interval", "1s"), "--interval needs --watch"),
    ],
)
def test_wrong_usage_is_explained(tmp_path, words, message):
    status, out, err = run(*STATS, *words, cwd=tmp_path)
    assert (status, out, len(err)) == (2, "", 1)
    assert message in err[0]
