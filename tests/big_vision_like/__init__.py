"""Tests of big_vision_like."""
