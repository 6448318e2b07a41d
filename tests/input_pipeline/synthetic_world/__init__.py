"""Tests of input_pipeline/synthetic_world."""
