"""The example ``conf/maintenance.yml``: every key of the maintenance sections."""

from __future__ import annotations

from pathlib import Path

import yaml

from twisted_registry.app.maintenance import task_definitions
from twisted_registry.config.loading import load_text
from twisted_registry.config.sections import schema_keys
from twisted_registry.config.storage import (
    GarbageCollection,
    Immutable,
    Maintenance,
    QuotaCount,
    ReadOnly,
    Retention,
    Rule,
    Scrub,
    TokenPurging,
    Trash,
    UploadPurging,
    Watermark,
)

EXAMPLE = Path(__file__).parents[2] / "conf" / "maintenance.yml"


def test_the_example_enables_every_task():
    result = load_text(EXAMPLE.read_text(), {}, "conf/maintenance.yml")
    assert result.warnings == ()
    maintenance = result.configuration.storage.maintenance
    with_tokens = load_text(
        EXAMPLE.read_text().replace("access:\n", "access:\n  tokens: {}\n"), {}, "x"
    ).configuration
    tasks = {"uploadpurging", "gc", "trash", "retention", "scrub", "quotas"}
    for configuration, more in ((result.configuration, set()), (with_tokens, {"tokenpurging"})):
        enabled = {task.name for task in task_definitions(configuration) if task.enabled}
        assert enabled == tasks | more
    assert (maintenance.watermark.warn, maintenance.watermark.refuse) == (0.85, 0.95)
    assert maintenance.retention.rules[0].newest == 10
    assert maintenance.scrub.rate == 16 * 2**20


def test_the_example_has_every_key():
    example = yaml.safe_load(EXAMPLE.read_text())["storage"]["maintenance"]
    assert set(example) == set(schema_keys(Maintenance))
    sections = {
        "uploadpurging": UploadPurging,
        "gc": GarbageCollection,
        "trash": Trash,
        "retention": Retention,
        "scrub": Scrub,
        "tokenpurging": TokenPurging,
        "watermark": Watermark,
        "readonly": ReadOnly,
        "quotas": QuotaCount,
    }
    for name, cls in sections.items():
        assert set(example[name]) == set(schema_keys(cls)), name
    assert set(example["retention"]["rules"][0]) == set(schema_keys(Rule))
    assert set(example["retention"]["immutable"][0]) == set(schema_keys(Immutable))


def test_commented_defaults_are_those_of_the_schema():
    """Where the example names a default, it is that of the schema."""
    configuration = load_text(EXAMPLE.read_text(), {}, "conf/maintenance.yml").configuration
    default = Maintenance()
    assert configuration.storage.maintenance.uploadpurging == default.uploadpurging
    for name in ("interval", "grace", "deleteuntagged", "dryrun", "rate"):
        assert getattr(configuration.storage.maintenance.gc, name) == getattr(default.gc, name)
    for name in ("interval", "rate"):
        assert getattr(configuration.storage.maintenance.scrub, name) == getattr(
            default.scrub, name
        )
