"""Evaluators: one file per evaluator type, run from the config."""
