"""Open Images V7 as its publishers distribute it."""
