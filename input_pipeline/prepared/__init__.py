"""Prepared records: their form, and the work that makes them."""
