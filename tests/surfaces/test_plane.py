"""Plane: the faults that its gradcheck must notice."""

from mutants import arguments, larger, result

from mpcli_surfaces import plane

MUTANTS = {
    "a x b with its sides swapped": (plane, "cross", arguments(lambda a, b: (b, a))),
    "a x b too long": (plane, "cross", result(larger)),
    "a component of a x b": (plane, "cross", result(lambda n: n * n.new_tensor([1, -1, 1]))),
    "distance from the parallel plane through 0": (plane, "distance", arguments(lambda x, p, n: (x, 0 * p, n))),
    "not divided by |n|": (plane, "distance", lambda f: lambda x, p, n: f(x, p, n) * n.norm()),
    "distance without a sign": (plane, "distance", result(lambda f: f.abs())),
}
