"""Removal of tags that no retention rule keeps (``storage.maintenance.retention``).

In doubt a tag is kept: if no rule selects it, if one of several reasons keeps it, or if it is
unknown when it was pushed or pulled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.clock import ClockJumps, time_before
from twisted_registry.repository.concurrency import map_concurrently

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from twisted_registry.maintenance.pull_times import PullTimes
    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.patterns import GlobSet
    from twisted_registry.repository.inventory import Inventory
    from twisted_registry.repository.policy import TagSelector
    from twisted_registry.repository.registry import Registry

log = Logger()


@frozen
class RetentionRule:
    """The tags that a rule selects, and which of them it keeps; one reason is enough.

    :ivar selector: the tags to which the rule applies.
    :ivar newest: keep this number of tags of each repository, by the time of their push.
    :ivar pushed_within: keep tags that were pushed within this number of seconds.
    :ivar pulled_within: keep tags that were pulled within this number of seconds; 0 for no such
        reason.
    :ivar always: keep these tags.
    """

    selector: TagSelector
    newest: int = 0
    pushed_within: float = 0.0
    pulled_within: float = 0.0
    always: GlobSet | None = None


@frozen
class TagTimes:
    """A tag with its times.

    :ivar pushed: when it was pushed, in seconds since the epoch; None if unknown.
    :ivar pulled: when it or its manifest was pulled last; None if no pull is known.
    """

    name: str
    digest: Digest
    pushed: float | None
    pulled: float | None = None


@frozen
class Decision:
    """The decision on one tag.

    :ivar kept: why it is kept; empty if it is removed.
    """

    repository: str
    tag: TagTimes
    kept: str


@define
class RetentionResult:
    """What a run did.

    :ivar repositories: repositories that a rule selects.
    :ivar tags: tags in them that a rule selects.
    :ivar kept: tags that are kept.
    :ivar expired: tags that were removed, or would be in a dry run.
    :ivar failed: repositories and tags that could not be processed.
    """

    repositories: int = 0
    tags: int = 0
    kept: int = 0
    expired: int = 0
    failed: int = 0


def decide(
    rule: RetentionRule,
    repository: str,
    tags: Sequence[TagTimes],
    now: float,
    recording_since: float | None,
) -> list[Decision]:
    """Decide on the tags of a repository that one rule selects.

    :param now: seconds since the epoch, by the clock of the store.
    :param recording_since: since when pulls are recorded; None if they are not.
    """
    ordered = sorted(tags, key=lambda tag: (-(tag.pushed or now), tag.name))
    newest = {tag.name for tag in ordered[: rule.newest]}
    return [
        Decision(repository, tag, _reason(rule, tag, newest, now, recording_since))
        for tag in sorted(tags, key=lambda tag: tag.name)
    ]


def _reason(
    rule: RetentionRule, tag: TagTimes, newest: set[str], now: float, recording_since: float | None
) -> str:
    if rule.always is not None and tag.name in rule.always:
        return "always"
    if tag.name in newest:
        return f"newest {rule.newest}"
    if tag.pushed is None:
        return "push time unknown"
    if now - tag.pushed < rule.pushed_within:
        return f"pushed {_format_days(now - tag.pushed)} ago"
    return _pull_reason(tag, rule.pulled_within, now, recording_since) if rule.pulled_within else ""


def _pull_reason(tag: TagTimes, within: float, now: float, recording_since: float | None) -> str:
    if recording_since is None:
        return "pulls not recorded yet"
    if tag.pulled is not None and now - tag.pulled < within:
        return f"pulled {_format_days(now - tag.pulled)} ago"
    return (
        f"pulls recorded for {_format_days(now - recording_since)}"
        if now - recording_since < within
        else ""
    )


def _format_days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} d"


@define(eq=False)
class TagRetention:
    """Applies rules to all tags of a store: to each tag the first rule that selects it.

    :ivar immutable: tags that are never removed.
    :ivar dry_run: only report what would be removed.
    :ivar on_decision: called with each decision.
    :ivar jumps: corrects ages after the clock was set.
    """

    registry: Registry
    inventory: Inventory
    pulls: PullTimes
    rules: Sequence[RetentionRule]
    immutable: Sequence[TagSelector] = ()
    dry_run: bool = False
    on_decision: Callable[[Decision], object] = lambda _: None
    jumps: ClockJumps = field(factory=ClockJumps.unwatched)
    _result: RetentionResult = field(init=False, factory=RetentionResult)
    _known_jumps: int = field(init=False, default=0)

    async def run(self) -> RetentionResult:
        """Remove the tags that no rule keeps. Repositories that cannot be read are skipped.

        :raises RegistryError: if the store fails otherwise.
        :raises ClockWasSet: if the clock was set meanwhile.
        """
        self._result = done = RetentionResult()
        longest = max((rule.pulled_within for rule in self.rules), default=0.0)
        span = max((rule.pushed_within for rule in self.rules), default=longest)
        span = max(span, longest)
        self.jumps.look()
        self._known_jumps = self.jumps.count
        # Less than the time of the store if that was set forward: ages look as great as they are.
        now = await time_before(self.inventory.driver, span, self.jumps) + span
        recording_since = None
        if longest:
            recording_since = await self.pulls.recording_since()
            await self.pulls.merge_batches(now - longest)
        async for name in self.inventory.repositories():
            rules = [rule for rule in self.rules if name in rule.selector.repositories]
            if rules:
                done.repositories += 1
                try:
                    await self._repository(name, rules, now, recording_since)
                except RegistryError:
                    # The storage error is logged already.
                    done.failed += 1
        log.info(
            "tag retention repositories={repositories} tags={tags} kept={kept} expired={expired} "
            "dry_run={dry_run}",
            repositories=done.repositories, tags=done.tags, kept=done.kept, expired=done.expired,
            dry_run=self.dry_run,
        )  # fmt: skip
        return done

    async def _repository(
        self, name: str, rules: Sequence[RetentionRule], now: float, recording_since: float | None
    ) -> None:
        chosen: dict[int, list[tuple[str, Digest]]] = {}
        async for tags in self.inventory.tags(name):
            for tag, digest in tags:
                number = self._first_rule(rules, name, tag)
                if number is not None:
                    chosen.setdefault(number, []).append((tag, digest))
        times = await self.pulls.read_times(name) if recording_since is not None else {}
        for number, found in chosen.items():
            seen = await self._load_times(name, found, times)
            self._result.tags += len(seen)
            await self._apply(decide(rules[number], name, seen, now, recording_since))

    def _first_rule(self, rules: Sequence[RetentionRule], name: str, tag: str) -> int | None:
        if any(choice.matches(name, tag) for choice in self.immutable):
            return None
        return next(
            (number for number, rule in enumerate(rules) if rule.selector.matches(name, tag)), None
        )

    async def _load_times(
        self, name: str, found: Iterable[tuple[str, Digest]], times: Mapping[str, float]
    ) -> list[TagTimes]:
        store = self.registry.repository(name).tags

        async def load_times(pair: tuple[str, Digest]) -> TagTimes:
            tag, digest = pair
            pulls = [times[key] for key in (tag, str(digest)) if key in times]
            return TagTimes(tag, digest, await store.pushed_at(tag), max(pulls, default=None))

        return await map_concurrently(load_times, list(found))

    async def _apply(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            self.on_decision(decision)
            if decision.kept:
                self._result.kept += 1
            elif self.dry_run or await self._expire(decision):
                self._result.expired += 1

    async def _expire(self, decision: Decision) -> bool:
        tag = decision.tag
        assert tag.pushed is not None
        self.jumps.check_unset(self._known_jumps)
        try:
            gone = await self.registry.repository(decision.repository).tags.delete_if_unchanged(
                tag.name, tag.digest, tag.pushed
            )
        except RegistryError:
            self._result.failed += 1
            return False
        if gone:
            log.info(
                "tag expired repository={repository} tag={tag} digest={digest}",
                tag=tag.name, repository=decision.repository, digest=str(tag.digest),
            )  # fmt: skip
        return gone
