"""The synthetic world: what is in it, how it looks, how it is labelled.

Used through input_pipeline/sources/synthetic.py; docs/synthetic-world.md.
"""
