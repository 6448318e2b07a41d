"""PASCAL VOC as its publishers distribute it."""
