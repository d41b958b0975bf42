"""Measurements of requests and storage calls, and their export to Prometheus."""
