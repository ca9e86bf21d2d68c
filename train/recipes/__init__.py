"""Recipes and the recordings bundled with them: data, read by name (`edge-lstm train solar`)."""
