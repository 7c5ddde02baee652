"""From a function's signature to command-line options, and from given values back to its arguments.

A parameter of type `Run` or `Trained` is handed in; a frozen dataclass is flattened into options; everything else is an
option. `Annotated[T, "help", Ge(1)]` gives the help text and bounds, `Literal` the choices.
"""

import dataclasses
import difflib
import inspect
import json
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
import typer

from mpcli.errors import InputError
from mpcli.registry import spoken
from mpcli.run import Run, Trained


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
                return float(value)
            return _whole(value) if isinstance(value, float) else int(value)
        except (ValueError, OverflowError):
            raise wrong from None
    if not isinstance(value, (str, Path)):
        raise wrong
    return kind(value)


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


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a verb function asks for."""

    options: tuple[Option, ...]
    run: str  # the parameter that takes the Run, or ""
    trained: str  # the parameter that takes the Trained, or ""
    configs: Mapping[str, type]  # parameters that take a frozen dataclass

    def arguments(self, values: Mapping[str, Any], run: Run | None, trained: Trained | None) -> dict[str, Any]:
        """The keyword arguments of the function for option values, a run and a trained run."""
        arguments: dict[str, Any] = {}
        for parameter, config in self.configs.items():
            arguments[parameter] = config(**{o.name: values[o.name] for o in self.options if o.parameter == parameter})
        arguments |= {o.name: values[o.name] for o in self.options if o.parameter not in self.configs}
        if self.run:
            arguments[self.run] = run
        if self.trained:
            arguments[self.trained] = trained
        return arguments


def read(function: Any) -> Signature:
    """The signature of a verb function.

    Raises:
        TypeError: a parameter has no default, no type, or a type that options cannot have.
    """
    hints = get_type_hints(function, include_extras=True)
    options: list[Option] = []
    run = trained = ""
    configs: dict[str, type] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in hints:
            raise TypeError(f"parameter {name} of {function.__module__}.{function.__name__} has no type")
        hint = hints[name]
        if hint is Run:
            run = name
        elif hint is Trained:
            trained = name
        elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
            configs[name] = hint
            fields = get_type_hints(hint, include_extras=True)
            options += [_option(f.name, fields[f.name], _field_default(f), name) for f in dataclasses.fields(hint)]
        else:
            options.append(_option(name, hint, parameter.default, name))
    names = [option.name for option in options]
    clash = {name for name in names if names.count(name) > 1} | (set(names) & set(COMMON))
    if clash:
        raise TypeError(f"{function.__module__}.{function.__name__} names an option twice: {', '.join(sorted(clash))}")
    return Signature(tuple(options), run, trained, configs)


def _field_default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _option(name: str, hint: Any, default: Any, parameter: str) -> Option:
    if default in (inspect.Parameter.empty, dataclasses.MISSING):
        raise TypeError(f"option {name} has no default: every verb must work with no option given")
    text, bounds, optional = "", [], False
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        text = " ".join(note for note in notes if isinstance(note, str))
        bounds = [note for note in notes if not isinstance(note, str)]
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        optional = len(members) < len(get_args(hint))
        if len(members) != 1:
            raise TypeError(f"option {name}: a union of several types is no option")
        hint = members[0]
    plain = hint in (int, float, str, bool, Path) or get_origin(hint) is Literal
    listed = get_origin(hint) is tuple and get_args(hint)[1:] == (...,) and get_args(hint)[0] in (int, float, str)
    if not plain and not listed:
        raise TypeError(f"option {name}: {hint} is no type of an option")
    return Option(name, hint, default, text, tuple(bounds), optional, parameter)


COMMON: dict[str, tuple[Any, str]] = {
    "out": (Path, "run directory, or with a suffix the file for the main result"),
    "seed": (int, "seed of every random number [default: 0]"),
    "device": (Literal["auto", "cpu", "cuda", "mps"], "where to compute [default: auto]"),
    "config": (Path, "JSON or TOML file of options; a run's config.json serves"),
    "json": (bool, "print one JSON object: run, artifacts, metrics, seconds"),
    "quiet": (bool, "no progress, no messages"),
    "debug": (bool, "show the traceback of an error"),
}
TRAINING: dict[str, tuple[Any, str]] = {
    "resume": (bool, "continue the run from its last checkpoint"),
    "checkpoint": (float, "seconds between checkpoints [default: 60]"),
    "seeds": (int, "so many seeds from --seed on, side by side over the cores: a run of each, and a band"),
}


def parameters(signature: Signature, training: bool) -> list[inspect.Parameter]:
    """Typer parameters for a verb: its own options, then those that every verb has."""
    found = []
    for option in signature.options:
        # Text for Typer: `Option.check` judges values from files and from the shell in the same words.
        kind = bool if option.type is bool else str
        names = [f"{option.flag}/--no-{option.flag[2:]}" if kind is bool else option.flag]
        notes = [option.help] if option.help else []
        shown = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
        if shown not in (None, ""):
            shown = str(shown).lower() if kind is bool else shown
            notes.append(f"[default: {shown}]")
        found.append(_parameter(option.name, kind, names, " ".join(notes), "Options of this page", option.metavar))
    for name, (kind, text) in (COMMON | (TRAINING if training else {})).items():
        found.append(_parameter(name, kind, [f"--{name}"], text, "Options of every page"))
    return found


def _parameter(
    name: str, kind: Any, flags: list[str], text: str, panel: str, metavar: str | None = None
) -> inspect.Parameter:
    # None stands for "not given", so that a configuration file can fill the gap and the page's default after it.
    info = typer.Option(*flags, help=text, rich_help_panel=panel, show_default=False, metavar=metavar)
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def read_config(path: Path) -> dict[str, Any]:
    """The options in a JSON or TOML file.

    Raises:
        InputError: the file cannot be read, or does not hold one table of options.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loaded = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a JSON or TOML file of options") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: is not valid {'TOML' if path.suffix == '.toml' else 'JSON'} ({error})") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, but options are one table of names and values")
    return {name.replace("-", "_"): value for name, value in loaded.items()}


def settle(signature: Signature, given: Mapping[str, Any], config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Every option's value: as given on the command line, else from the configuration, else the page's default.

    Raises:
        InputError: a value of the wrong type or out of bounds, or a name in the configuration that is no option.
    """
    known = {option.name for option in signature.options}
    for name in config:
        if name not in known and name not in COMMON and name not in TRAINING:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the options are {', '.join(sorted(known))}"
            raise InputError(f"{source}: there is no option {name}; {hint}")
    values = {}
    for option in signature.options:
        if given.get(option.name) is not None:
            values[option.name] = option.check(given[option.name], option.flag)
        elif option.name in config:
            values[option.name] = option.check(config[option.name], f"{source}: {option.name}")
        else:
            values[option.name] = option.default
    return values
