"""Chapter 7. Implicit surfaces: shapes as the level set of a function.

Pages: sphere, plane, torus, volume, mesh, igr.

A shape can be kept as cells of a grid, as points, as triangles, or as the set of points where a function is zero. The
first three are what can be measured, stored and drawn; the last is continuous, of any topology, and as exact as its
function. `marching_cubes` leads from the last to the third.
"""
