"""Evaluators: one file each, chosen by `type` in config.evals.

An evaluator is one module that exports `Evaluator`; docs/add-an-evaluator.md
walks through one.
"""
