"""The recipe: typed TOML, the bundled recipes, and the outline of a recipe for an unknown recording."""
