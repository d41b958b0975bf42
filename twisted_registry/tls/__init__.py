"""TLS: certificate sources, OpenSSL contexts, connections and endpoints."""
