"""Files and archives: found, read in place, locked, written whole."""
