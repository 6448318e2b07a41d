"""The train steps that the scripts above compare, one module a task."""
