"""Chapter 11. Mathematics: what everything above rests on.

derivatives: the identities of differentiation
"""
