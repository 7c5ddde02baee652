"""Chapter 8. Radiance fields: scenes as fields of colour and density.

nerf: a scene as a network, seen along rays
"""
