"""Tests of input_pipeline/examples."""
