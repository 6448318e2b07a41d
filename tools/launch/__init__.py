"""Starting a run of several processes; docs/running-on-clusters.md."""
