"""A model of the collector's protocol, small enough to try every interleaving.

See :mod:`twisted_registry.gc.gate` for the protocol. The model has one blob, which is garbage, and
one manifest that needs it. Two serving processes each take a push: the blob, unless they report it
as present, and then the manifest. One collector runs once, and may be killed. Each step is one
access to the store. Between any two steps every other process may act, stall beyond its term, or
come back.

Removed bytes go to the trash, where a manifest PUT that misses them finds them. The trash may be
emptied at any time. If that is at once, it is the same as having no trash.

The model does not include revisions on a list (``garbage-collect --delete-untagged``).

Each safeguard is a switch, so that a test can show what it is for.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

SERVERS = (0, 1)


class Rules(NamedTuple):
    """Safeguards, and what may happen. The numbers are those of the rules in ``gate.py``.

    :ivar second_mark: 1: the collector marks again after it has published the condemned list.
    :ivar read_list: 2: a manifest PUT reads the list after its link is written.
    :ivar check_presence: 3: after that, it checks once more that its blob is stored.
    :ivar drain: 7: a process acknowledges a list when what it began before has ended.
    :ivar stop_when_overdue: 5: a process that could not renew its record stores nothing more.
    :ivar record_first: 5: a process that begins to serve writes its record, then reads the list.
    :ivar lease_early: 6: a process that has acknowledged a list writes no more leases for it.
    :ivar exit_is_certain: 11: the list of a collector is ignored only after it has exited.
    :ivar processes_stall: a process may stall for longer than its record lives during a step.
    :ivar collector_stalls: the collector may stall between its last look at the clock and the
        removal.
    """

    second_mark: bool = True
    read_list: bool = True
    check_presence: bool = True
    drain: bool = True
    stop_when_overdue: bool = True
    record_first: bool = True
    lease_early: bool = True
    exit_is_certain: bool = True
    processes_stall: bool = True
    collector_stalls: bool = False


class Server(NamedTuple):
    """A serving process.

    :ivar step: the step of its push.
    :ivar serves: whether it considers its record to be alive.
    :ivar record: whether other processes do.
    :ivar seen: whether it has seen the list.
    :ivar obeys: whether it obeys the list.
    """

    step: str = "head"
    serves: bool = False
    record: bool = False
    seen: bool = False
    obeys: bool = False


class Store(NamedTuple):
    """What all processes share.

    :ivar blob: "old", "fresh" (pushed again since the proposal), "trash", "" (removed) or "lost"
        (removed although it was pushed again).
    :ivar links: whether the push of each process has written its link.
    :ivar listed: "", "proposed", "condemned" or "expired".
    :ivar ignored: whether serving processes ignore the list, because its collector has exited.
    """

    blob: str = "old"
    links: tuple[bool, bool] = (False, False)
    listed: str = ""
    leased: bool = False
    ignored: bool = False


class State(NamedTuple):
    """The whole state.

    :ivar collector: the next step of the collector; "exited" if it was killed.
    :ivar unreachable: whether the collector's last mark missed the blob.
    """

    store: Store = Store()
    servers: tuple[Server, Server] = (Server(), Server())
    collector: str = "propose"
    unreachable: bool = False


#: Steps of a push that is inside the gate.
UNDER_WAY = {"leasing", "moving", "copying", "linking", "reading", "probing"}


class ServerStep:
    """The possible next steps of one server, from one state."""

    def __init__(self, state, number, rules):
        self.state = state
        self.number = number
        self.rules = rules
        self.store = state.store
        self.server = state.servers[number]
        self.listed = self.store.listed in {"proposed", "condemned"} and not self.store.ignored
        # The collector takes it off the list.
        is_kept = self.store.leased and self.store.listed == "proposed"
        #: whether this process reports the blob as absent to clients that push
        self.is_hidden = self.server.obeys and self.listed and not is_kept
        self.is_there = self.store.blob in {"old", "fresh"}
        self.may_store = self.server.serves or not rules.stop_when_overdue

    def after(self, step=None, store=None, **changes):
        servers = list(self.state.servers)
        servers[self.number] = self.server._replace(step=step or self.server.step, **changes)
        return self.state._replace(store=store or self.store, servers=tuple(servers))

    def push(self):
        """Yield the next steps of the push; none at its end."""
        step = getattr(self, f"_{self.server.step}", None)
        if step is not None:
            yield step()
        if self.server.step == "head":
            # Some clients upload without asking.
            yield self.after("commit")

    def _head(self):
        if self.is_hidden and self.rules.lease_early:
            return self.after("commit")
        if self.server.seen and self.listed:
            return self.after("leasing" if self.may_store else "commit")
        return self.after("looking")

    def _leasing(self):
        return self.after("looking", self.store._replace(leased=True))

    def _looking(self):
        return self.after("check" if self.is_there else "commit")

    def _commit(self):
        # It waits for the sweep, for a limited time.
        return self.after("refused" if self.is_hidden or not self.may_store else "moving")

    def _moving(self):
        return self.after("check", self.store._replace(blob="fresh"))

    def _check(self):
        fine = self.is_there and not self.is_hidden and self.may_store
        if self.store.blob == "trash":
            return self.after("recalling")
        return self.after("linking" if fine else "refused")

    def _recalling(self):
        # Like a commit of the same bytes, but they may have been removed from the trash.
        if self.is_hidden or not self.may_store or not self.store.blob:
            return self.after("refused")
        return self.after("copying")

    def _copying(self):
        if not self.store.blob:
            return self.after("refused")
        return self.after("check", self.store._replace(blob="fresh"))

    def _linking(self):
        links = tuple(link or self.number == which for which, link in enumerate(self.store.links))
        return self.after(
            "reading" if self.rules.read_list else "pushed", self.store._replace(links=links)
        )

    def _reading(self):
        if self.store.listed == "condemned" and not self.store.ignored:
            return self.after("refused")
        return self.after("probing" if self.rules.check_presence else "pushed")

    def _probing(self):
        return self.after("pushed" if self.is_there else "refused")

    def poll(self):
        """Yield the steps beside the push: the record, the list and the acknowledgement."""
        server = self.server
        if server.serves and (self.rules.processes_stall or server.step not in UNDER_WAY):
            # It could not renew its record, and detects that before others do.
            yield self.after(serves=False)
        elif server.record and not server.serves:
            yield self.after(record=False)
        if not server.serves:
            yield from self._begin_to_serve()
        elif self.listed and not server.seen:
            yield self.after(seen=True)
        drained = server.step not in UNDER_WAY or not self.rules.drain
        if server.serves and server.seen and not server.obeys and drained:
            yield self.after(obeys=True)

    def _begin_to_serve(self):
        server = self.server
        if self.rules.record_first:
            if not server.record:
                yield self.after(record=True)
            else:
                # The collector of this list may not wait for it, so it obeys at once.
                yield self.after(serves=True, seen=self.listed, obeys=self.listed)
        elif not server.record:
            # In the other order, the list may change before others know of this process.
            yield self.after(record=True, serves=True)


class CollectorStep:
    """The possible next steps of the collector, from one state."""

    def __init__(self, state, rules):
        self.state = state
        self.rules = rules
        self.store = state.store

    def after(self, step, unreachable=None, **changes):
        return self.state._replace(
            store=self.store._replace(**changes),
            collector=step,
            unreachable=self.state.unreachable if unreachable is None else unreachable,
        )

    def advance(self):
        """Yield the next step, and a stall until the list has expired."""
        following = getattr(self, f"_{self.state.collector}", lambda: None)()
        if following is not None:
            yield following
        listed = self.store.listed in {"proposed", "condemned"}
        if listed and self.state.collector != "exited":
            yield self.after("exited")
        if listed and (self.state.collector != "remove" or self.rules.collector_stalls):
            yield self.state._replace(store=self.store._replace(listed="expired"))

    def _propose(self):
        return None if any(self.store.links) else self.after("wait", listed="proposed")

    def _wait(self):
        waits = any(server.record and not server.obeys for server in self.state.servers)
        return None if waits else self.after("leases")

    def _leases(self):
        return self.after("withdraw" if self.store.leased else "condemn")

    def _condemn(self):
        if self.store.listed != "proposed":
            return self.after("withdraw")
        following = "mark" if self.rules.second_mark else "sweep"
        return self.after(following, unreachable=True, listed="condemned")

    def _mark(self):
        return self.after("sweep", not any(self.store.links) and self.store.blob == "old")

    def _sweep(self):
        in_time = self.store.listed == "condemned"
        return self.after("remove" if self.state.unreachable and in_time else "withdraw")

    def _remove(self):
        if self.store.blob == "fresh":
            return self.after("withdraw", blob="lost")
        return self.after("withdraw", blob="trash")

    def _withdraw(self):
        return self.after("done", listed="")


def _steps(state, rules):
    for number in SERVERS:
        turn = ServerStep(state, number, rules)
        yield from turn.push()
        yield from turn.poll()
    yield from CollectorStep(state, rules).advance()
    if state.collector == "exited" or not rules.exit_is_certain:
        yield state._replace(store=state.store._replace(ignored=True))
    if state.store.blob == "trash":
        yield state._replace(store=state.store._replace(blob=""))


def is_broken(state):
    """Return whether a manifest that was answered 201 lacks its blob or its link."""
    return any(
        server.step == "pushed"
        and not (state.store.links[number] and state.store.blob in {"old", "fresh"})
        for number, server in enumerate(state.servers)
    )


def is_lost(state):
    """Return whether bytes that were pushed again were removed: that push will fail."""
    return state.store.blob == "lost"


def _sorted(state):
    """Return the same state with the servers in order: which is which does not matter."""
    pairs = sorted(zip(state.servers, state.store.links, strict=True))
    servers, links = zip(*pairs, strict=True)
    return state._replace(servers=servers, store=state.store._replace(links=links))


def explore(rules, is_bad):
    """Try all interleavings.

    :returns: the states that were reached, and the path to a bad one or None.
    """
    begin = State()
    came_from = {begin: None}
    waiting = deque([begin])
    while waiting:
        state = waiting.popleft()
        if is_bad(state):
            way = []
            while state is not None:
                way.append(state)
                state = came_from[state]
            return set(came_from), way[::-1]
        for step in _steps(state, rules):
            following = _sorted(step)
            if following not in came_from:
                came_from[following] = state
                waiting.append(following)
    return set(came_from), None
