"""Tests of input_pipeline/ops."""
