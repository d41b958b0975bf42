"""Who may do what: the interfaces that a route asks before it takes a body."""
