"""Parts of extract_features and make_fasteval."""
