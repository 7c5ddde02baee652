"""Chapter 4. Normalizing flows: exact densities by invertible maps.

A flow moves samples of a simple base distribution through an invertible map, so that it has an exact density as
autoregressive models do, and a latent space as variational autoencoders do, of the same dimension as the data.
In reading order: linear_flow, planar, nice, realnvp, glow, conditional_coupling, srflow, styleflow,
cflow.
"""
