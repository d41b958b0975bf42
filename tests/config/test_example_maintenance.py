"""The example of all that goes on beside serving."""

from __future__ import annotations

from pathlib import Path

import yaml

from twisted_registry.app.maintenance import chores
from twisted_registry.config.loading import load_text
from twisted_registry.config.sections import schema_keys
from twisted_registry.config.storage import (
    GarbageCollection,
    Immutable,
    Maintenance,
    ReadOnly,
    Retention,
    Rule,
    Scrub,
    Trash,
    UploadPurging,
    Watermark,
)

EXAMPLE = Path(__file__).parents[2] / "conf" / "maintenance.yml"


def test_the_example():
    loaded = load_text(EXAMPLE.read_text(), {}, "conf/maintenance.yml")
    assert loaded.warnings == ()
    made = loaded.configuration.storage.maintenance
    assert {chore.name for chore in chores(made) if chore.enabled} == {
        *("uploadpurging", "gc", "trash", "retention", "scrub")
    }
    assert (made.watermark.warn, made.watermark.refuse) == (0.85, 0.95)
    assert made.retention.rules[0].newest == 10
    assert made.scrub.rate == 16 * 2**20


def test_the_example_has_every_key():
    said = yaml.safe_load(EXAMPLE.read_text())["storage"]["maintenance"]
    assert set(said) == set(schema_keys(Maintenance))
    sections = {
        "uploadpurging": UploadPurging,
        "gc": GarbageCollection,
        "trash": Trash,
        "retention": Retention,
        "scrub": Scrub,
        "watermark": Watermark,
        "readonly": ReadOnly,
    }
    for name, schema in sections.items():
        assert set(said[name]) == set(schema_keys(schema)), name
    assert set(said["retention"]["rules"][0]) == set(schema_keys(Rule))
    assert set(said["retention"]["immutable"][0]) == set(schema_keys(Immutable))


def test_its_defaults_are_those_that_it_says():
    """Where the example says what would be so without it."""
    made = load_text(EXAMPLE.read_text(), {}, "conf/maintenance.yml").configuration
    default = Maintenance()
    assert made.storage.maintenance.uploadpurging == default.uploadpurging
    for name in ("interval", "grace", "deleteuntagged", "dryrun", "rate"):
        assert getattr(made.storage.maintenance.gc, name) == getattr(default.gc, name)
    for name in ("interval", "rate"):
        assert getattr(made.storage.maintenance.scrub, name) == getattr(default.scrub, name)
