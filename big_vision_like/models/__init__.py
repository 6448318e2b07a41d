"""Linen modules with named endpoints; one file per model type."""
