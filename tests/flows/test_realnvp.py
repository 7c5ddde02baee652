"""RealNVP: the faults that its gradcheck must notice."""

from mutants import larger, part

from mpcli_flows import realnvp
from mpcli_flows.kit import bijectors

MUTANTS = {
    "log-determinant of a coupling": (realnvp.AffineCoupling, "inverse", part(1, larger)),
    "log-determinant on the way to data": (realnvp.AffineCoupling, "forward", part(1, larger)),
    "log-determinant of couplings on vectors": (realnvp.VectorCouplings, "inverse", part(1, larger)),
    "log-determinant of a checkerboard": (realnvp.CheckerboardCoupling, "inverse", part(1, larger)),
    "log-determinant of the logit": (bijectors.Logit, "inverse", part(1, larger)),
}
