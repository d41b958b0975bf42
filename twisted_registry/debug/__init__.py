"""What a second address tells of a registry: health, metrics, maintenance."""
