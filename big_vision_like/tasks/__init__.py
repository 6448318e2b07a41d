"""Tasks: a loss and predictions over a model; one file per task type."""
