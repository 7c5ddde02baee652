"""Chapter 11. Mathematics: what everything above rests on.

Pages: derivatives.
"""
