"""Derivatives, likelihoods and divergences: the formulas that every other page leans on.

    (fg)' = f'g + fg'     (f/g)' = (f'g - fg') / g^2     (f o g)' = f'(g) g'     (f^-1)' = 1 / f'(f^-1)
    s(x) = 1 / (1 + e^-x),  s' = s (1 - s)               tanh' = 1 - tanh^2
    y = softmax(x),  dy/dx = diag(y) - y y^T             max(0, x)' = [x > 0]

    z_l = f(a_l),  a_l = W_l z_(l-1) + b_l,  d_l = dL/dz_l                                          backpropagation
    d_(l-1) = W_l^T (d_l * f'(a_l))     dL/dW_l = (d_l * f'(a_l)) z_(l-1)^T     dL/db_l = d_l * f'(a_l)

    -log N(y; m, s^2) = (y - m)^2 / 2s^2 + log s + 1/2 log 2 pi          -log Laplace(y; m, b) = |y - m| / b + log 2b
    log p(w|D) = log p(w) + sum_i log p(y_i|w) - log p(D)                Bayes; its maximum over w is the MAP
    H(p, q) = H(p) + KL(p || q)     KL >= 0     JS(p, q) = 1/2 KL(p || m) + 1/2 KL(q || m),  m = (p + q) / 2
    f(E[X]) <= E[f(X)] for convex f             det(A + u v^T) = (1 + v^T A^-1 u) det A
    X ~ N(m, S), Y ~ N(n, T) independent:       X + Y ~ N(m + n, S + T),  A X + t ~ N(A m + t, A S A^T)

There is nothing to train here: `mpcli gradcheck derivatives` compares each formula with central differences, with a
sum or an integral taken numerically, or with the same quantity got in another way.

Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, 1986. Nature 323
Lin, Divergence measures based on the Shannon entropy, 1991. IEEE Transactions on Information Theory 37
Bishop, Pattern Recognition and Machine Learning, 2006. Springer
"""

from collections.abc import Iterator

from mpcli.checks import Case
from mpcli_math.derivatives import calculus, probability


def gradcheck() -> Iterator[Case]:
    yield from calculus.rules()
    yield from calculus.activations()
    yield from calculus.backpropagation()
    yield from probability.likelihoods()
    yield from probability.bayes()
    yield from probability.divergences()
    yield from probability.matrices()
