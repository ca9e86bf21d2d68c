"""Attacks on bundles, databases and services, at full size: `make attack`."""
