"""``python -m tests.bench.embedded`` measures everything that it names."""

from __future__ import annotations

import shutil

import pytest

from tests.bench import embedded


def test_every_row_is_measured(capsys):
    assert embedded.main(["--rounds", "1"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["until", "the", "first", "request", "is", "answered", "best", "median"]
    assert len(rows) == 9
    missing = {row.split()[0] for row in rows if row.endswith("not installed")}
    assert missing == {name for name in ("docker-registry", "crane") if shutil.which(name) is None}
    assert all(row.endswith(" ms") for row in rows if row.split()[0] not in missing)


def test_another_answer_is_an_error():
    from twisted_registry.testing import Registry

    async def refuse(request, proceed):
        del proceed
        request.setResponseCode(503)
        request.finish()

    with Registry() as registry:
        registry.hooks.append(refuse)
        with pytest.raises(ValueError, match="503"):
            embedded.ask(registry.port)
