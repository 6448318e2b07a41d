"""Configs: loaded, checked, compared; plug-ins by name; durations."""
