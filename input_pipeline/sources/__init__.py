"""Random-access sources of raw examples; one file per source type."""
