"""Recordings from and to a broker."""
