"""The benchmark: this registry beside others. ``make bench`` runs it."""
