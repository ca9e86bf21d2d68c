"""Board descriptions: data, one TOML a board."""
