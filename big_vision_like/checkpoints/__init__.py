"""Checkpoints: saving, finding, restoring, warm starts, foreign weights."""
