"""Readings to samples."""
