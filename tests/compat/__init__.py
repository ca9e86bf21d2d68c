"""Bundles exported here and verified by runtimes of other versions; `make test-compat` runs both halves."""
