"""Sets of labelled images: what sources over files and archives share."""
