"""The network in torch, its losses, the training loop, the checkpoint."""
