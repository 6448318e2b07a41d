"""Parts of dataset_stats."""
