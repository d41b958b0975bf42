"""The configuration file and its environment overrides, checked once at the edge."""
