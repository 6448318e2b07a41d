"""Experiment configs: plain data, one file per table or figure."""
