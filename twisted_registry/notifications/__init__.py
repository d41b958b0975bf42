"""Notifications: events that are sent to other programs; ``listener.py`` is their way in."""
