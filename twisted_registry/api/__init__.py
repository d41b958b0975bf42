"""HTTP only: one file for each resource of the distribution specification."""
