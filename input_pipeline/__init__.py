"""Input: sources of records, per-example ops, batched pipelines."""
