"""Certificates from an ACME server such as Let's Encrypt (RFC 8555), validated with TLS-ALPN-01."""
