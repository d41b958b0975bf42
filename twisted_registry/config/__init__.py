"""The configuration: file, environment overrides, schema and checks."""
