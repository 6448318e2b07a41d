"""Parts of export."""
