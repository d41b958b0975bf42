"""``garbage-collect --explain``: prints what keeps a blob or manifest, or when it goes."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import asdict

from twisted_registry import alone
from twisted_registry.collecting import make_explainer
from twisted_registry.commands.configured import print_error
from twisted_registry.commands.once import CommandFailed
from twisted_registry.commands.store import open_store
from twisted_registry.digest import Digest, DigestInvalid
from twisted_registry.maintenance.explain import describe_holder
from twisted_registry.maintenance.marking import CollectionFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.explain import Explanation, Holder

#: Manifests that are printed of each kind; JSON has all.
_MAX_PRINTED = 20


def explain(configuration: Configuration, text: str, *, untagged: bool, as_json: bool) -> int:
    """Print why a digest stays.

    :param untagged: whether manifests that no tag holds go as well.
    :returns: the exit status: 1 if the store has no such content, or can not be looked through.
    """
    try:
        digest = Digest.parse(text)
    except DigestInvalid as error:
        print_error(f"--explain: {error}")
        return 2

    async def look(reactor: Any) -> Explanation:
        async with open_store(configuration, reactor) as driver:
            made = make_explainer(configuration, driver, reactor, untagged=untagged)
            try:
                return await made.explain(digest)
            except CollectionFailed as error:
                raise CommandFailed(str(error)) from error
            finally:
                await made.mark_phase.references.close()

    found = alone.run_once(look)
    if found is None:
        return 1
    if as_json:
        sys.stdout.write(f"{json.dumps(_plain(found), default=str)}\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(found, datetime.now(UTC)))
    return 1 if found.size is None else 0


def _plain(found: Explanation) -> dict[str, object]:
    # Not in depth: a digest is a text here.
    holders = [asdict(holder, recurse=False) for holder in found.holders]
    return {**asdict(found, recurse=False), "holders": holders, "kept": found.kept}


def _lines(found: Explanation, now: datetime) -> Iterable[str]:
    if found.size is None:
        yield f"{found.digest}: not stored"
    else:
        yield f"{found.digest}: {found.size} bytes, stored {_time(found.stored)}"
    yield from _holders([holder for holder in found.holders if holder.holds], "kept")
    yield from _holders(
        [holder for holder in found.holders if not holder.holds], "not kept: untagged, and old"
    )
    for name in found.troubled:
        yield f"  kept: {name} links it, and holds a manifest that can not be read"
    if found.listed:
        yield f"  a collector is at work on it: {found.listed}"
    if found.leased:
        yield "  it stays for now, for a client asked for it meanwhile"
    if found.goes is not None:
        over = found.goes <= now.timestamp()
        when = "now that" if over else "after"
        yield (
            f"it goes with the next collection, {when} its grace period"
            f" {'is over' if over else 'ends, ' + _time(found.goes)}"
        )


def _holders(holders: list[Holder], how: str) -> Iterable[str]:
    # Those with a tag first: that is what people look for.
    ordered = sorted(holders, key=lambda holder: not holder.tags)
    for holder in ordered[:_MAX_PRINTED]:
        reasons = list(describe_holder(holder))
        if holder.young_until is not None:
            reasons.append(f"young until {_time(holder.young_until)}")
        why = "; ".join(reasons) or "untagged"
        yield f"  {how}: {holder.repository}@{holder.manifest}: {why}"
    if len(ordered) > _MAX_PRINTED:
        yield f"  {how}: {len(ordered) - _MAX_PRINTED} more"


def _time(second: float | None) -> str:
    if second is None:
        return "at an unknown time"
    return datetime.fromtimestamp(second, UTC).isoformat(" ", "seconds")
