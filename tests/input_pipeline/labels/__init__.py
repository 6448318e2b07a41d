"""Tests of input_pipeline/labels."""
