"""Torus: the faults that its gradcheck must notice."""

from mutants import arguments, larger, result

from mpcli_surfaces import torus

MUTANTS = {
    "sign of the distance": (torus.Torus, "distance", result(lambda f: -f)),
    "distance of a larger scale": (torus.Torus, "distance", result(larger)),
    "around the x axis": (torus, "from_ring", arguments(lambda x, major: (x.flip(-1), major))),
    "radii swapped": (torus.Torus, "distance", lambda f: lambda t, x: f(torus.Torus(t.minor, t.major), x)),
    "hole closed": (torus, "from_ring", result(lambda apart: apart.clamp(min=0))),
}
