"""Traces of requests, through the OpenTelemetry SDK."""
