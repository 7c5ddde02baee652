"""One option: its type and bounds, and how text or a JSON value becomes its value."""

import dataclasses
import inspect
import math
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types

from mpcli.errors import InputError
from mpcli.registry import spoken


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: a parameter of the verb, or a field of its configuration dataclass."""

    name: str
    type: Any  # without Annotated and without None
    default: Any
    help: str
    bounds: tuple[annotated_types.BaseMetadata, ...]
    optional: bool  # None is a value
    parameter: str  # the parameter of the function that it belongs to

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return ("-" if len(self.name) == 1 else "--") + spoken(self.name)

    @property
    def metavar(self) -> str | None:
        """What stands for the value in help; None for a switch."""
        if self.type is bool:
            return None
        if get_origin(self.type) is Literal:
            return "|".join(map(str, get_args(self.type)))
        listed = get_origin(self.type) is tuple
        word = {int: "INT", float: "FLOAT", Path: "PATH"}.get(get_args(self.type)[0] if listed else self.type, "TEXT")
        return f"{word},..." if listed else word

    def check(self, value: Any, source: str) -> Any:
        """`value` as the option's type; `source` names the option or file in the sentence of an `InputError`."""
        if value is None and self.optional:
            return None
        value = self._convert(value, source)
        for bound in self._limits():
            for item in value if isinstance(value, tuple) else (value,):
                if not _holds(bound, item):
                    raise InputError(f"{source} must be {_words(bound)}, not {item}")
        return value

    def _limits(self) -> list[annotated_types.BaseMetadata]:
        flat: list[annotated_types.BaseMetadata] = []
        for bound in self.bounds:
            flat.extend(bound if isinstance(bound, annotated_types.GroupedMetadata) else [bound])  # type: ignore[arg-type]
        return flat

    def _convert(self, value: Any, source: str) -> Any:
        kind = self.type
        if get_origin(kind) is Literal:
            for choice in get_args(kind):
                if value == choice or value == str(choice):
                    return choice
            raise InputError(f"{source} must be one of {', '.join(map(str, get_args(kind)))}, not {value}")
        if get_origin(kind) is tuple:
            item = get_args(kind)[0]
            items = value.split(",") if isinstance(value, str) else value
            if not isinstance(items, (list, tuple)):
                raise InputError(f"{source} must be {_kind_words(kind)}, not {value!r}")
            return tuple(_scalar(item, part.strip() if isinstance(part, str) else part, source, kind) for part in items)
        return _scalar(kind, value, source, kind)


def _scalar(kind: type, value: Any, source: str, whole: Any) -> Any:
    wrong = InputError(f"{source} must be {_kind_words(whole)}, not {value!r}")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise wrong
        try:
            if kind is float:
                return _finite(float(value), source)
            return _whole(value) if isinstance(value, float) else int(value)
        except (ValueError, OverflowError):
            raise wrong from None
    if not isinstance(value, (str, Path)):
        raise wrong
    return kind(value)


def _finite(number: float, source: str) -> float:
    if not math.isfinite(number):
        raise InputError(f"{source} must be finite, not {number}")
    return number


def _whole(number: float) -> int:
    if number != int(number):
        raise ValueError(number)
    return int(number)


def _kind_words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"a list such as {'64,64' if get_args(kind)[0] is not str else 'a,b'}"
    return {int: "an integer", float: "a number", bool: "true or false", Path: "a path"}.get(kind, "text")


_COMPARISONS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


def _holds(bound: Any, value: Any) -> bool:
    if isinstance(bound, annotated_types.Ge):
        return value >= bound.ge
    if isinstance(bound, annotated_types.Gt):
        return value > bound.gt
    if isinstance(bound, annotated_types.Le):
        return value <= bound.le
    if isinstance(bound, annotated_types.Lt):
        return value < bound.lt
    raise TypeError(f"{bound!r} is no bound: use Ge, Gt, Le, Lt or Interval of annotated_types")


def _words(bound: Any) -> str:
    key = type(bound).__name__.lower()
    return f"{_COMPARISONS[key]} {getattr(bound, key)}"


def of_fields(kind: type, parameter: str) -> list[Option]:
    """An option for every field of a dataclass.

    Raises:
        TypeError: a field has no default, or a type that options cannot have.
    """
    hints = get_type_hints(kind, include_extras=True)
    return [make(f.name, hints[f.name], _field_default(f), parameter) for f in dataclasses.fields(kind)]


def _field_default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def make(name: str, hint: Any, default: Any, parameter: str) -> Option:
    """An option from a type hint.

    Raises:
        TypeError: it has no default, or a type that options cannot have.
    """
    if default in (inspect.Parameter.empty, dataclasses.MISSING):
        raise TypeError(f"parameter {name} has no default; give it one, for every verb works with no option given")
    text, bounds, optional = "", [], False
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        text = " ".join(note for note in notes if isinstance(note, str))
        bounds = [note for note in notes if not isinstance(note, str)]
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        optional = len(members) < len(get_args(hint))
        if len(members) != 1:
            raise TypeError(f"parameter {name} is a union of several types; give it one type, or one and None")
        hint = members[0]
    plain = hint in (int, float, str, bool, Path) or get_origin(hint) is Literal
    listed = get_origin(hint) is tuple and get_args(hint)[1:] == (...,) and get_args(hint)[0] in (int, float, str)
    if not plain and not listed:
        shown = hint.__name__ if isinstance(hint, type) else hint
        raise TypeError(
            f"parameter {name} has the type {shown}, which no option has; the types are int, float, str, bool, Path, "
            "Literal, tuple[int, ...] or of float or str, and a frozen dataclass of these"
        )
    option = Option(name, hint, default, text, tuple(bounds), optional, parameter)
    try:
        option.check(default, f"the default of parameter {name}")
    except InputError as error:
        raise TypeError(str(error)) from None
    return option
