"""Broken: it wants a package that nobody has."""

import a_package_that_nobody_has


def train(run) -> None:
    a_package_that_nobody_has.train(run)
