"""Chapter 2. Latent variables: models with a hidden cause.

vae: variational autoencoder
"""
