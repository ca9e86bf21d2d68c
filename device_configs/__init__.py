"""Descriptions of the supported boards, one TOML file per board."""
