"""Measurements as ratios against a peer or a limit in the same run; each prints one JSON line last."""
