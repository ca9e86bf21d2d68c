"""Sensors that are dead."""
