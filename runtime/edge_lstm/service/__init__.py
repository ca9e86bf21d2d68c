"""The service: its configuration, its loop, its state database."""
