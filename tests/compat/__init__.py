"""Bundles made in the workshop and verified by runtimes of other versions; `make test-compat` runs both halves."""
