"""Faults put into a page, that its gradcheck must notice.

A page's test names them as `MUTANTS`: what is wrong, where (a module or class, and a name in it), and what makes the
broken twin out of the original. `tests/test_contract.py` puts each in and expects a failing case. A test may also hold
`SMALL`: for a verb the options under which it takes a second.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

Mutant = tuple[Any, str, Callable[[Any], Any]]


def result(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A twin whose result is changed."""
    return lambda original: lambda *args, **options: change(original(*args, **options))


def part(index: int, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A twin of whose results, a tuple, one is changed."""
    return result(lambda found: (*found[:index], change(found[index]), *found[index + 1 :]))


def arguments(change: Callable[..., tuple[Any, ...]]) -> Callable[[Any], Any]:
    """A twin that gets other arguments: `change(*args)` gives them."""
    return lambda original: lambda *args, **options: original(*change(*args), **options)


def larger(x: Any) -> Any:
    """1.1 times as much."""
    return 1.1 * x


def nothing(x: Any) -> Any:
    """Zeros of the same kind."""
    return torch.zeros_like(x) if isinstance(x, torch.Tensor) else 0 * x


@cache
def module_of(page: str) -> Any:
    """The test module of a page."""
    (path,) = Path(__file__).parent.rglob(f"test_{page}.py")
    spec = importlib.util.spec_from_file_location(f"test_of_{page}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
