"""TLS: certificates, what is asked of clients, and how connections get them."""
