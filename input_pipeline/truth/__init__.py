"""What is annotated in all records of a source, as flat arrays."""
