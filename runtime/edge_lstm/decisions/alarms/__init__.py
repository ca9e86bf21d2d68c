"""Scores of an anomaly detector, and what an alarm says."""
