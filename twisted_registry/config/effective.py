"""The configuration as it holds, said again in the shape of the file and without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from twisted_registry.config.loading import SCHEMA

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration


def masked_data(configuration: Configuration) -> dict[str, Any]:
    """*configuration* as plain data, defaults included, secrets as ``******``."""
    said: dict[str, Any] = SCHEMA.dump(configuration)
    return said


def effective_yaml(configuration: Configuration) -> str:
    """The same as YAML, ready to print; without secrets it loads to an equal configuration."""
    return yaml.safe_dump(
        masked_data(configuration), sort_keys=False, allow_unicode=True, default_flow_style=False
    )
