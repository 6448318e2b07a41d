"""Tests of big_vision_like/models/parts."""
