"""From a function's signature to command-line options, and from given values back to its arguments.

A parameter of type `Run` or `Trained` is handed in; a frozen dataclass is flattened into options; everything else is an
option. `Annotated[T, "help", Ge(1)]` gives the help text and bounds, `Literal` the choices.
"""

import dataclasses
import difflib
import inspect
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer
from annotated_types import Ge, Interval

from mpcli import values
from mpcli.errors import InputError
from mpcli.run import Run, Trained
from mpcli.values import Option

_TRAINING = {"training": True}  # marks the options that only verbs which train have


@dataclasses.dataclass(frozen=True)
class Common:
    """The options that every verb has."""

    out: Annotated[Path | None, "run directory, or with a suffix the file for the main result"] = None
    seed: Annotated[int, "seed of every random number", Interval(ge=0, lt=2**32)] = 0
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], "where to compute"] = "auto"
    config: Annotated[Path | None, "JSON or TOML file of options; a run's config.json serves"] = None
    json: Annotated[bool, "print one JSON object: run, artifacts, metrics, seconds"] = False
    quiet: Annotated[bool, "no progress, no messages"] = False
    debug: Annotated[bool, "show the traceback of an error"] = False
    resume: Annotated[bool, "continue the run from its last checkpoint"] = dataclasses.field(
        default=False, metadata=_TRAINING
    )
    checkpoint: Annotated[float, "seconds between checkpoints", Ge(0)] = dataclasses.field(
        default=60.0, metadata=_TRAINING
    )
    seeds: Annotated[
        int, "so many seeds from --seed on, side by side over the cores: a run of each, and a band", Ge(1)
    ] = dataclasses.field(default=1, metadata=_TRAINING)


COMMON = tuple(values.of_fields(Common, "common"))
RESERVED = {option.name for option in COMMON} | {"help", "others"}  # no page can have an option of these names
RECORDED = ("seed", "device", "seeds")  # common options that a run's config.json holds, so a file may give them
ONLY_TRAINING = {field.name for field in dataclasses.fields(Common) if field.metadata}


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
        TypeError: a parameter makes no option; the message names file, function and parameter, and says what is right.
    """
    try:
        return _read(function)
    except TypeError as error:
        raise TypeError(f"{_where(function)}: {function.__name__}: {error}") from error
    except NameError as error:
        raise TypeError(f"{_where(function)}: {function.__name__}: an annotation is not defined ({error})") from error


def _where(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return getattr(function, "where", None) or (f"{code.co_filename}, line {code.co_firstlineno}" if code else "")


def _read(function: Any) -> Signature:
    hints = get_type_hints(function, include_extras=True)
    options: list[Option] = []
    run = trained = ""
    configs: dict[str, type] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"parameter {parameter} cannot be an option; give each option a name of its own")
        if name not in hints:
            raise TypeError(f"parameter {name} has no type; annotate it, as in {name}: int = 1")
        hint = hints[name]
        if hint is Run:
            run = name
        elif hint is Trained:
            trained = name
        elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
            configs[name] = hint
            options += values.of_fields(hint, name)
        else:
            options.append(values.make(name, hint, parameter.default, name))
    names = [option.name for option in options]
    for name in names:
        if name in RESERVED:
            raise TypeError(f"parameter {name} has a name that every verb has already; choose another")
        if names.count(name) > 1:
            raise TypeError(
                f"parameter {name} is there twice, once in a dataclass; choose another name for one of them"
            )
    return Signature(tuple(options), run, trained, configs)


def parameters(signature: Signature, training: bool) -> list[inspect.Parameter]:
    """Typer parameters for a verb: its own options, then those that every verb has."""
    found = []
    for option in signature.options:
        flags = [f"{option.flag}/--no-{option.flag[2:]}" if option.type is bool else option.flag]
        found.append(_parameter(option, flags, "Options of this page"))
    for option in COMMON:
        if training or option.name not in ONLY_TRAINING:
            found.append(_parameter(option, [option.flag], "Options of every page"))
    return found


def _parameter(option: Option, flags: list[str], panel: str) -> inspect.Parameter:
    # Text for Typer: `Option.check` judges values from files and from the shell in the same words.
    kind: Any = bool if option.type is bool else str
    notes = [option.help] if option.help else []
    shown = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    if shown not in (None, "") and not (kind is bool and option.parameter == "common"):
        notes.append(f"[default: {str(shown).lower() if kind is bool else shown}]")
    info = typer.Option(*flags, help=" ".join(notes), rich_help_panel=panel, show_default=False, metavar=option.metavar)
    # None stands for "not given", so that a configuration file can fill the gap and the page's default after it.
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


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
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply; options are one table of names and values") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: is not valid {'TOML' if path.suffix == '.toml' else 'JSON'} ({error})") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, but options are one table of names and values")
    return {name.replace("-", "_"): value for name, value in loaded.items()}


def settle(
    options: Iterable[Option], given: Mapping[str, Any], config: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """The value of each option: as given on the command line, else from the configuration, else its default.

    Args:
        source: the file of the configuration, for the sentence of an error.

    Raises:
        InputError: a value of the wrong type or out of bounds.
    """
    settled = {}
    for option in options:
        if given.get(option.name) is not None:
            settled[option.name] = option.check(given[option.name], option.flag)
        elif option.name in config:
            settled[option.name] = option.check(config[option.name], f"{source}: {option.name}")
        else:
            settled[option.name] = option.default
    return settled


def common(given: Mapping[str, Any], config: Mapping[str, Any], source: str) -> Common:
    """The common options, settled.

    Raises:
        InputError: a value of the wrong type or out of bounds.
    """
    return Common(**settle(COMMON, given, {name: config[name] for name in RECORDED if name in config}, source))


def refuse_unknown(options: Iterable[Option], config: Mapping[str, Any], source: str) -> None:
    """Raise an InputError if the configuration names what is no option."""
    known = {option.name for option in options}
    for name in set(config) - known - {option.name for option in COMMON}:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the options are {', '.join(sorted(known))}"
        raise InputError(f"{source}: there is no option {name}; {hint}")


def as_text(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
