"""Removes tags that rules no longer keep (``storage.maintenance.retention``).

Deleting is slower than keeping: a tag that no rule chooses stays, one of several reasons to keep it
is enough, and what is not known (when it was pushed, or pulled) speaks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.errors import RegistryError
from twisted_registry.repository.concurrency import each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from twisted_registry.digest import Digest
    from twisted_registry.globs import Choice
    from twisted_registry.repository.inventory import Inventory
    from twisted_registry.repository.pulltimes import PullTimes
    from twisted_registry.repository.registry import Registry
    from twisted_registry.repository.removal import Removal
    from twisted_registry.repository.tagchoice import TagChoice

log = Logger()


@frozen
class Rule:
    """What is kept of the tags that it chooses; what several reasons keep is kept once.

    :ivar newest: so many of each repository, by the time of their push.
    :ivar pushed_within: what was pushed in the last so many seconds.
    :ivar pulled_within: what was pulled in the last so many seconds.
    :ivar always: tags that stay.
    """

    where: TagChoice
    newest: int = 0
    pushed_within: float = 0.0
    pulled_within: float = 0.0
    always: Choice | None = None


@frozen
class Tag:
    """A tag, as it was found.

    :ivar pushed: in seconds since the epoch; None if the store does not tell.
    :ivar pulled: likewise, it or its manifest; None if no pull is known.
    """

    name: str
    digest: Digest
    pushed: float | None
    pulled: float | None = None


@frozen
class Verdict:
    """What becomes of a tag.

    :ivar kept: why it stays; empty if it goes.
    """

    repository: str
    tag: Tag
    kept: str


@frozen
class Retained:
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
    rule: Rule, repository: str, tags: Sequence[Tag], now: float, since: float | None
) -> list[Verdict]:
    """What becomes of the tags of a repository that one rule chooses.

    :param since: since when pulls are recorded; None if they are not.
    """
    ordered = sorted(tags, key=lambda tag: (-(tag.pushed or now), tag.name))
    newest = {tag.name for tag in ordered[: rule.newest]}
    return [
        Verdict(repository, tag, _reason(rule, tag, newest, now, since))
        for tag in sorted(tags, key=lambda tag: tag.name)
    ]


def _reason(rule: Rule, tag: Tag, newest: set[str], now: float, since: float | None) -> str:
    if rule.always is not None and tag.name in rule.always:
        return "always"
    if tag.name in newest:
        return f"newest {rule.newest}"
    if tag.pushed is None:
        return "push time unknown"
    if now - tag.pushed < rule.pushed_within:
        return f"pushed {_days(now - tag.pushed)} ago"
    return _pulled(tag, rule.pulled_within, now, since) if rule.pulled_within else ""


def _pulled(tag: Tag, within: float, now: float, since: float | None) -> str:
    if since is None:
        return "pulls not recorded yet"
    if tag.pulled is not None and now - tag.pulled < within:
        return f"pulled {_days(now - tag.pulled)} ago"
    return f"pulls recorded for {_days(now - since)}" if now - since < within else ""


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} d"


@define(eq=False)
class Retention:
    """Goes by rules: for each tag the first one that chooses it.

    :ivar immutable: tags that stay, whatever the rules say.
    :ivar dry_run: only say what would go.
    :ivar watch: hears each verdict.
    """

    registry: Registry
    inventory: Inventory
    removal: Removal
    pulls: PullTimes
    rules: Sequence[Rule]
    immutable: Sequence[TagChoice] = ()
    dry_run: bool = False
    watch: Callable[[Verdict], object] = lambda _: None
    _counts: dict[str, int] = field(init=False, factory=dict)

    async def run(self) -> Retained:
        """Remove what no rule keeps; a repository that can not be read does not keep the rest.

        :raises RegistryError: if the store does not answer.
        """
        self._counts = dict.fromkeys(("repositories", "tags", "kept", "expired", "failed"), 0)
        now = await self.removal.time()
        longest = max((rule.pulled_within for rule in self.rules), default=0.0)
        since = None
        if longest:
            since = await self.pulls.since()
            await self.pulls.gather(now - longest)
        async for name in self.inventory.repositories():
            rules = [rule for rule in self.rules if name in rule.where.repositories]
            if rules:
                self._counts["repositories"] += 1
                try:
                    await self._repository(name, rules, now, since)
                except RegistryError:
                    # The cause is in the log already.
                    self._counts["failed"] += 1
        done = Retained(**self._counts)
        log.info(
            "tags: {tags} in {repositories} repositories, {kept} kept, {expired} {verb}",
            verb="would go" if self.dry_run else "expired",
            tags=done.tags, repositories=done.repositories, kept=done.kept, expired=done.expired,
        )  # fmt: skip
        return done

    async def _repository(
        self, name: str, rules: Sequence[Rule], now: float, since: float | None
    ) -> None:
        chosen: dict[int, list[tuple[str, Digest]]] = {}
        async for tags in self.inventory.tags(name):
            for tag, digest in tags:
                number = self._first(rules, name, tag)
                if number is not None:
                    chosen.setdefault(number, []).append((tag, digest))
        times = await self.pulls.of(name) if since is not None else {}
        for number, found in chosen.items():
            seen = await self._looked_up(name, found, times)
            self._counts["tags"] += len(seen)
            await self._carry_out(decide(rules[number], name, seen, now, since))

    def _first(self, rules: Sequence[Rule], name: str, tag: str) -> int | None:
        if any(choice.has(name, tag) for choice in self.immutable):
            return None
        return next(
            (number for number, rule in enumerate(rules) if rule.where.has(name, tag)), None
        )

    async def _looked_up(
        self, name: str, found: Iterable[tuple[str, Digest]], times: Mapping[str, float]
    ) -> list[Tag]:
        store = self.registry.repository(name).tags

        async def look(pair: tuple[str, Digest]) -> Tag:
            tag, digest = pair
            pulls = [times[key] for key in (tag, str(digest)) if key in times]
            return Tag(tag, digest, await store.pushed(tag), max(pulls, default=None))

        return await each(look, list(found))

    async def _carry_out(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            self.watch(verdict)
            if verdict.kept:
                self._counts["kept"] += 1
            elif self.dry_run or await self._expire(verdict):
                self._counts["expired"] += 1

    async def _expire(self, verdict: Verdict) -> bool:
        tag = verdict.tag
        assert tag.pushed is not None
        try:
            gone = await self.registry.repository(verdict.repository).tags.expire(
                tag.name, tag.digest, tag.pushed
            )
        except RegistryError:
            self._counts["failed"] += 1
            return False
        if gone:
            log.info(
                "tag {tag} of {repository} has expired, it named {digest}",
                tag=tag.name, repository=verdict.repository, digest=str(tag.digest),
            )  # fmt: skip
        return gone
