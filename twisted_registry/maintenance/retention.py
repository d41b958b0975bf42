"""Removes tags that rules no longer keep (``storage.maintenance.retention``).

Deleting is slower than keeping: a tag that no rule chooses stays, one of several reasons to keep it
is enough, and what is not known (when it was pushed, or pulled) speaks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.inventory import store_time

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
    """What is kept of the tags that it chooses; what several reasons keep is kept once.

    :ivar newest: so many of each repository, by the time of their push.
    :ivar pushed_within: what was pushed in the last so many seconds.
    :ivar pulled_within: what was pulled in the last so many seconds.
    :ivar always: tags that stay.
    """

    selector: TagSelector
    newest: int = 0
    pushed_within: float = 0.0
    pulled_within: float = 0.0
    always: GlobSet | None = None


@frozen
class TagTimes:
    """A tag, as it was found.

    :ivar pushed: in seconds since the epoch; None if the store does not tell.
    :ivar pulled: likewise, it or its manifest; None if no pull is known.
    """

    name: str
    digest: Digest
    pushed: float | None
    pulled: float | None = None


@frozen
class Decision:
    """What becomes of a tag.

    :ivar kept: why it stays; empty if it goes.
    """

    repository: str
    tag: TagTimes
    kept: str


@frozen
class RetentionResult:
    """What a run did.

    :ivar repositories: that a rule chooses.
    :ivar tags: of these that a rule chooses.
    :ivar kept: tags that stay.
    :ivar expired: tags that are gone, or would be.
    :ivar failed: repositories or tags that could not be dealt with.
    """

    repositories: int
    tags: int
    kept: int
    expired: int
    failed: int


def decide(
    rule: RetentionRule,
    repository: str,
    tags: Sequence[TagTimes],
    now: float,
    recording_since: float | None,
) -> list[Decision]:
    """What becomes of the tags of a repository that one rule chooses.

    :param since: since when pulls are recorded; None if they are not.
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
    """Goes by rules: for each tag the first one that chooses it.

    :ivar immutable: tags that stay, whatever the rules say.
    :ivar dry_run: only say what would go.
    :ivar watch: hears each verdict.
    """

    registry: Registry
    inventory: Inventory
    pulls: PullTimes
    rules: Sequence[RetentionRule]
    immutable: Sequence[TagSelector] = ()
    dry_run: bool = False
    on_decision: Callable[[Decision], object] = lambda _: None
    _counts: dict[str, int] = field(init=False, factory=dict)

    async def run(self) -> RetentionResult:
        """Remove what no rule keeps; a repository that can not be read does not keep the rest.

        :raises RegistryError: if the store does not answer.
        """
        self._counts = dict.fromkeys(("repositories", "tags", "kept", "expired", "failed"), 0)
        now = await store_time(self.inventory.driver)
        longest = max((rule.pulled_within for rule in self.rules), default=0.0)
        recording_since = None
        if longest:
            recording_since = await self.pulls.recording_since()
            await self.pulls.merge_batches(now - longest)
        async for name in self.inventory.repositories():
            rules = [rule for rule in self.rules if name in rule.selector.repositories]
            if rules:
                self._counts["repositories"] += 1
                try:
                    await self._repository(name, rules, now, recording_since)
                except RegistryError:
                    # The cause is in the log already.
                    self._counts["failed"] += 1
        done = RetentionResult(**self._counts)
        log.info(
            "tags: {tags} in {repositories} repositories, {kept} kept, {expired} {verb}",
            verb="would go" if self.dry_run else "expired",
            tags=done.tags, repositories=done.repositories, kept=done.kept, expired=done.expired,
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
            self._counts["tags"] += len(seen)
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
                self._counts["kept"] += 1
            elif self.dry_run or await self._expire(decision):
                self._counts["expired"] += 1

    async def _expire(self, decision: Decision) -> bool:
        tag = decision.tag
        assert tag.pushed is not None
        try:
            gone = await self.registry.repository(decision.repository).tags.delete_if_unchanged(
                tag.name, tag.digest, tag.pushed
            )
        except RegistryError:
            self._counts["failed"] += 1
            return False
        if gone:
            log.info(
                "tag {tag} of {repository} has expired, it named {digest}",
                tag=tag.name, repository=decision.repository, digest=str(tag.digest),
            )  # fmt: skip
        return gone
