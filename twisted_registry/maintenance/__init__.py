"""Chores that go on beside serving; of paths they know nothing."""
