"""What a broker carries, and which mapping reads it."""
