"""Chapter 8. Radiance fields: scenes as fields of colour and density.

Pages: nerf.
"""
