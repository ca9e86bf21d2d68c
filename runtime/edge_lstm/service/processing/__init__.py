"""Received messages to predictions that are committed, published and acknowledged."""
