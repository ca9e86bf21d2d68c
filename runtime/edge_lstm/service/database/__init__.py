"""The state database of a service (SQLite): its tables, its migration, its history, its checksums."""
