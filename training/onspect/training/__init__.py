"""Train a convolutional autoencoder (CAE, VAE or AAE, Schneider et al. 2022) on images of good parts."""
