"""Metric definitions in pure numpy: arrays in, floats out."""
