"""What every subject of the registry is joined by: parts, and the errors of their start."""
