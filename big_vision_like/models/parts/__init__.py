"""Layers and heads that models and tasks are built from."""
