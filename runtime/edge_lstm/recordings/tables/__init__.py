"""Tables from files, as columns of cells."""
