"""Core of the trainer: experiment, step, state, models, tasks, metrics."""
