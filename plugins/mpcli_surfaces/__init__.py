"""Chapter 7. Implicit surfaces: shapes as the level set of a function.

A shape can be kept as cells of a grid, as points, as triangles, or as the set of points where a function is zero. The
first three are what can be measured, stored and drawn; the last is continuous, of any topology, and as exact as its
function. `marching_cubes` leads from the last to the third.

sphere: points at one distance from a centre
plane: a half-space
torus: points at one distance from a circle
volume: a grid of samples
mesh: distance to triangles
igr: a network fitted to points
"""
