"""The checks of ``twisted-registry doctor``."""
