"""Messages about what happens to a stream, beside its predictions."""
