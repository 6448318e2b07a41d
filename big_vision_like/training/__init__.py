"""The pure train step, its state, optimisers and schedules."""
