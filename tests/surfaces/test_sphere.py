"""Sphere: the faults that its gradcheck must notice."""

from mutants import larger, nothing, result

from mpcli_surfaces.sphere import Sphere

MUTANTS = {
    "sign of the distance": (Sphere, "distance", result(lambda f: -f)),
    "distance of a larger scale": (Sphere, "distance", result(larger)),
    "distance from the centre": (Sphere, "distance", lambda f: lambda self, x: f(self, x) + self.radius),
    "no slope inside": (Sphere, "distance", result(lambda f: f.clamp(min=0))),
    "nothing": (Sphere, "distance", result(nothing)),
}
