"""Authentication and authorization: schemes, policies and access controllers."""
