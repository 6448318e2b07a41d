"""Configs: loaded, checked, compared; plug-ins by name; durations."""

from big_vision_like.config import shipped

shipped.make_importable()
