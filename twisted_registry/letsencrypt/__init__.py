"""Certificates by ACME (RFC 8555): ordered, proven by TLS-ALPN-01 (RFC 8737), kept, renewed."""
