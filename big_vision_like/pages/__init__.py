"""HTML pages, sheets, pictures and plots: results to be looked at."""
