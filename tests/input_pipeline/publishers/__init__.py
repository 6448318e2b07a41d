"""Tests of input_pipeline/publishers."""
