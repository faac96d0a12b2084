"""The autoencoders of the paper: networks, losses and training."""
