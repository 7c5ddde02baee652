"""Chapter 4. Normalizing flows: exact densities by invertible maps.

A flow moves samples of a simple base distribution through an invertible map, so that it has an exact density as
autoregressive models do, and a latent space as variational autoencoders do, of the same dimension as the data.

linear_flow: an invertible matrix
planar: one bend after another
nice: additive coupling
realnvp: affine coupling
glow: invertible 1x1 convolutions
conditional_coupling: coupling that sees a condition
srflow: super-resolution
styleflow: attributes in a latent space
cflow: anomaly detection
"""
