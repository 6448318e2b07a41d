"""Tests of input_pipeline/files."""
