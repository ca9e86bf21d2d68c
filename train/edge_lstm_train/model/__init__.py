"""The network in torch and its training: start, losses, fit, saved progress and checkpoint."""
