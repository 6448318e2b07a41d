"""Tests of the tools prepare_*."""
