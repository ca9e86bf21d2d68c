"""The recipe: typed TOML, bundled recipes, and the outline of a recipe for an unknown recording."""
