"""What evaluators share: their data, running them, exclusions."""
