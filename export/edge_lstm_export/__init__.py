"""Export: a checkpoint in, one proven bundle out."""
