"""Health checks of the surroundings of a registry, and the state that follows from them."""
