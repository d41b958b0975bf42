"""Loads configurations given as text, and returns their faults as lines."""

from __future__ import annotations

import pytest

from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import LoadedConfiguration, load_text

#: The shortest configurations, each two lines long.
MEMORY = "version: 0.1\nstorage: inmemory\n"
FILESYSTEM = "version: 0.1\nstorage: filesystem\n"


def load_config(text: str, **environ: str) -> LoadedConfiguration:
    """Load *text*, which faults call ``f``; *environ* without the prefix ``REGISTRY_``."""
    variables = {f"REGISTRY_{name}": value for name, value in environ.items()}
    return load_text(text, variables, "f")


def config_error(text: str, **environ: str) -> ConfigurationError:
    """The error that loading *text* raises."""
    with pytest.raises(ConfigurationError) as caught:
        load_config(text, **environ)
    return caught.value


def fault_lines(text: str, **environ: str) -> list[str]:
    """The faults of *text*, one line each."""
    error = config_error(text, **environ)
    assert str(error).splitlines() == [str(fault) for fault in error.faults]
    return [str(fault) for fault in error.faults]
