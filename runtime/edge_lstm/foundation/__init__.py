"""What every other package stands on: errors, typed TOML, files, times, numbers."""
