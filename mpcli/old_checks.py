"""Transitional: cases of two functions and a whole draw, until every page has the form of `mpcli.checks`."""

from typing import Any

from mpcli import checks
from mpcli.checks import Case


def _made(maker: Any) -> Any:
    def make(name: str, left: Any, right: Any, draw: Any, *, printed: Any = None, **options: Any) -> Case:
        def sides(drawn: Any) -> Any:
            return (left(*drawn), right(*drawn), *((printed(*drawn),) if printed else ()))

        def gradient_sides(first: Any, rest: Any) -> Any:
            return (left(first, *rest), right(first, *rest), *((printed(first, *rest),) if printed else ()))

        mistake: Any = {"mistake": "unnamed"} if printed else {}
        if maker is checks.gradient:
            kept: dict[str, Any] = {}

            def first(g: Any) -> Any:
                kept["drawn"] = draw(g)
                return kept["drawn"][0]

            return maker(name, gradient_sides, first, lambda g: kept["drawn"][1:], **mistake, **options)
        return maker(name, sides, draw, **mistake, **options)

    return make


identity, gradient, inequality = _made(checks.identity), _made(checks.gradient), _made(checks.inequality)
