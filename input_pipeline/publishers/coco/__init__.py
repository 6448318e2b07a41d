"""COCO as its publishers distribute it."""
