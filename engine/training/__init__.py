"""Training of the embedded checkpoints: data, noise, losses, optimiser, trainer."""
