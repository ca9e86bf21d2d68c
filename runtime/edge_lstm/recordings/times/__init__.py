"""Times of recordings: how they are written, and in which zone."""
