"""The service: its config, its loop, its state database."""
