"""Losses per example."""
