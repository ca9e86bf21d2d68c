"""Training: a recipe and a recording in, a checkpoint and an honest report out."""
