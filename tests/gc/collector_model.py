"""A model of the collector's protocol, small enough to try every interleaving.

What is removed goes into the trash, where a manifest PUT that misses it finds it, and which may be
emptied at any time: at once, too, which is the same as no trash.

One blob that nothing references and that is old enough to go, one manifest that names it. Two
serving processes each take a push: the blob, unless they call it present, then the manifest. One
collector goes through its steps. Every step is one access to the store, and between any two of
them any other process may act, stall beyond its term, or come back.

The safeguards are switches, so that a test can show what each of them is for.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

SERVERS = (0, 1)


class Rules(NamedTuple):
    """The safeguards.

    ``second_look``: the collector marks again after it has published what is condemned.
    ``read_back``: a manifest PUT reads the condemned list after its link is written.
    ``probe``: and after that looks for its blob once more.
    ``quiet``: a process acknowledges a list once what it began before has ended.
    ``punctual``: a process that could not renew its record in time refuses what it would store.
    ``record_first``: a process that (again) begins to serve writes its record, then reads the list.
    ``lapses``: a process may stall for longer than its record is good in the middle of a step.
    ``stalls``: the collector may, between its last look at the time and the removal.
    """

    second_look: bool = True
    read_back: bool = True
    probe: bool = True
    quiet: bool = True
    punctual: bool = True
    record_first: bool = True
    lapses: bool = True
    stalls: bool = False


class Server(NamedTuple):
    """A serving process.

    ``step``: where its push is. ``serves``: it believes that others know it to live.
    ``record``: whether they do. ``seen``, ``obeys``: whether it knows the list, and obeys it.
    """

    step: str = "head"
    serves: bool = False
    record: bool = False
    seen: bool = False
    obeys: bool = False


class Store(NamedTuple):
    """What all processes see.

    ``blob``: "old", "fresh" (pushed again since the proposal), "trash", "" (gone) or "lost" (gone
    although it was pushed again).
    ``listed``: "", "proposed", "condemned" or "void" (its term has passed).
    """

    blob: str = "old"
    links: tuple[bool, bool] = (False, False)
    listed: str = ""
    leased: bool = False


class State(NamedTuple):
    """Everything. ``doomed``: what the collector's last mark told of the blob."""

    store: Store = Store()
    servers: tuple[Server, Server] = (Server(), Server())
    collector: str = "propose"
    doomed: bool = False


#: Steps of a push that has passed the gate and not ended.
UNDER_WAY = {"leasing", "moving", "copying", "linking", "reading", "probing"}


class Turn:
    """One step of one server, from one state."""

    def __init__(self, state, number, rules):
        self.state = state
        self.number = number
        self.rules = rules
        self.store = state.store
        self.me = state.servers[number]
        self.listed = self.store.listed in {"proposed", "condemned"}
        #: Whether this process tells its clients that the blob is gone.
        self.gone = self.me.obeys and self.listed
        self.is_there = self.store.blob in {"old", "fresh"}
        self.may_store = self.me.serves or not rules.punctual

    def after(self, step=None, store=None, **changes):
        servers = list(self.state.servers)
        servers[self.number] = self.me._replace(step=step or self.me.step, **changes)
        return self.state._replace(store=store or self.store, servers=tuple(servers))

    def push(self):
        """The next step of the push; none at its end."""
        step = getattr(self, f"_{self.me.step}", None)
        if step is not None:
            yield step()
        if self.me.step == "head":
            # Some clients do not ask.
            yield self.after("commit")

    def _head(self):
        if self.gone:
            return self.after("commit")
        return self.after("leasing" if self.me.seen and self.listed else "looking")

    def _leasing(self):
        return self.after("looking", self.store._replace(leased=True))

    def _looking(self):
        return self.after("check" if self.is_there else "commit")

    def _commit(self):
        # It waits for the sweep to pass, with a bound.
        return self.after("refused" if self.gone or not self.may_store else "moving")

    def _moving(self):
        return self.after("check", self.store._replace(blob="fresh"))

    def _check(self):
        fine = self.is_there and not self.gone and self.may_store
        if self.store.blob == "trash":
            return self.after("recalling")
        return self.after("linking" if fine else "refused")

    def _recalling(self):
        # As a commit of the same bytes; only that they may be gone from the trash by now.
        if self.gone or not self.may_store or not self.store.blob:
            return self.after("refused")
        return self.after("copying")

    def _copying(self):
        if not self.store.blob:
            return self.after("refused")
        return self.after("check", self.store._replace(blob="fresh"))

    def _linking(self):
        links = tuple(link or self.number == which for which, link in enumerate(self.store.links))
        return self.after(
            "reading" if self.rules.read_back else "pushed", self.store._replace(links=links)
        )

    def _reading(self):
        fine = self.store.listed != "condemned" and self.may_store
        if not fine:
            return self.after("refused")
        return self.after("probing" if self.rules.probe else "pushed")

    def _probing(self):
        return self.after("pushed" if self.is_there else "refused")

    def attend(self):
        """What the process does beside its push: its record, the list, its acknowledgement."""
        me = self.me
        if me.serves and (self.rules.lapses or me.step not in UNDER_WAY):
            # It could not renew its record; it notices before others do.
            yield self.after(serves=False)
        elif me.record and not me.serves:
            yield self.after(record=False)
        if not me.serves:
            yield from self._begin_to_serve()
        elif self.listed and not me.seen:
            yield self.after(seen=True)
        quiet = me.step not in UNDER_WAY or not self.rules.quiet
        if me.serves and me.seen and not me.obeys and quiet:
            yield self.after(obeys=True)

    def _begin_to_serve(self):
        me = self.me
        if self.rules.record_first:
            if not me.record:
                yield self.after(record=True)
            else:
                # A list that it finds may not wait for it: it obeys at once.
                yield self.after(serves=True, seen=self.listed, obeys=self.listed)
        elif not me.record:
            # The other way round: what it read may be old by the time that others know of it.
            yield self.after(record=True, serves=True)


class Collection:
    """One step of the collector, from one state."""

    def __init__(self, state, rules):
        self.state = state
        self.rules = rules
        self.store = state.store

    def after(self, step, doomed=None, **changes):
        return self.state._replace(
            store=self.store._replace(**changes),
            collector=step,
            doomed=self.state.doomed if doomed is None else doomed,
        )

    def go_on(self):
        """The next step; and stalling until the term of the list has passed."""
        following = getattr(self, f"_{self.state.collector}", lambda: None)()
        if following is not None:
            yield following
        listed = self.store.listed in {"proposed", "condemned"}
        if listed and (self.state.collector != "remove" or self.rules.stalls):
            yield self.state._replace(store=self.store._replace(listed="void"))

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
        following = "mark" if self.rules.second_look else "sweep"
        return self.after(following, doomed=True, listed="condemned")

    def _mark(self):
        return self.after("sweep", not any(self.store.links) and self.store.blob == "old")

    def _sweep(self):
        in_time = self.store.listed == "condemned"
        return self.after("remove" if self.state.doomed and in_time else "withdraw")

    def _remove(self):
        if self.store.blob == "fresh":
            return self.after("withdraw", blob="lost")
        return self.after("withdraw", blob="trash")

    def _withdraw(self):
        return self.after("done", listed="")


def _steps(state, rules):
    for number in SERVERS:
        turn = Turn(state, number, rules)
        yield from turn.push()
        yield from turn.attend()
    yield from Collection(state, rules).go_on()
    if state.store.blob == "trash":
        yield state._replace(store=state.store._replace(blob=""))


def is_broken(state):
    """Whether a manifest that was answered 201 has lost its blob, or its own link."""
    return any(
        server.step == "pushed"
        and not (state.store.links[number] and state.store.blob in {"old", "fresh"})
        for number, server in enumerate(state.servers)
    )


def is_lost(state):
    """Whether bytes that were pushed again were removed: no image is broken, but a push fails."""
    return state.store.blob == "lost"


def _sorted(state):
    """The same state with the servers in order: which is which does not matter."""
    pairs = sorted(zip(state.servers, state.store.links, strict=True))
    servers, links = zip(*pairs, strict=True)
    return state._replace(servers=servers, store=state.store._replace(links=links))


def explore(rules, is_bad):
    """Try everything; return the states that were reached, and the way to a bad one or None."""
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
