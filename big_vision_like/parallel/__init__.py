"""The device mesh and the places of arrays on it."""
