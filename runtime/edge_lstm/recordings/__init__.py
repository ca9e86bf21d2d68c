"""Recordings: CSV and Parquet files as readings; recording, replay and simulation."""
