"""Recordings: files to readings, live traffic to files, files to a broker."""
