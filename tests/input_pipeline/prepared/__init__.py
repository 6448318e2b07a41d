"""Tests of input_pipeline/prepared."""
