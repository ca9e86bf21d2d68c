"""Installing a service on a board, locally or over ssh."""
