"""``middleware.storage``: drivers around a driver, which change where clients are sent."""
