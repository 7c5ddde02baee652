"""The signature of a page's verb, read from its source: what help and completion need, without importing the page.

Annotations and defaults are evaluated where they are made of literals, of `typing`, `annotated_types` and other light
modules, and of names that source alone resolves: constants, dataclasses and functions of the page itself or of what it
imports. Anything else raises `Unresolved`, and the page is to be imported.
"""

import ast
import builtins
import contextlib
import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from mpcli import options
from mpcli.errors import Failed
from mpcli.options import Signature
from mpcli.registry import Page, find_source, read_source

# Modules that cost nothing, or are loaded already: their own objects stand in an annotation.
_LIGHT = (
    "typing",
    "annotated_types",
    "pathlib",
    "dataclasses",
    "collections.abc",
    "math",
    "mpcli.run",
    "mpcli.trained",
)
_BUILTINS = ("int", "float", "str", "bool", "tuple", "list", "dict", "object", "type", "bytes", "complex", "set")
_KEEPING = ("torch.no_grad()", "torch.inference_mode()", "torch.enable_grad()")  # decorators that keep a signature
_EXPRESSIONS = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Dict),
    *(ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Starred, ast.operator, ast.unaryop, ast.expr_context),
)


class Unresolved(Exception):
    """Source alone does not say what a name is."""


def of(page: Page, verb: str) -> Signature:
    """The signature of a page's verb: from the source, or where that does not do, from the imported page.

    Raises:
        InputError: the page has no such verb.
        Failed: the page is broken, or its function makes no command line.
    """
    if verb in page.verbs and not page.taken_by:
        with contextlib.suppress(Exception):  # whatever a third party's source does: importing it tells the reason
            return read(page.module, verb)
    return imported(page, verb)


def imported(page: Page, verb: str) -> Signature:
    """The signature of a verb of the imported page.

    Raises:
        InputError: the page has no such verb.
        Failed: the page is broken, or its function makes no command line; the message says why.
    """
    function = page.function(verb)
    try:
        return options.read(function)
    except TypeError as error:
        raise Failed(f"page {page.name} of {page.distribution} {page.version} cannot be used: {error}") from error


def fault(page: Page) -> str:
    """Why a page cannot be used, as far as its source tells, or an empty string."""
    for verb in () if page.broken else page.verbs:
        try:
            function = source(page.module)[verb]
        except Exception:  # only the imported page can tell
            continue
        try:
            if verb != "gradcheck":
                options.read(function)
        except TypeError as error:
            return str(error)
    return page.broken


def read(module: str, verb: str) -> Signature:
    """The signature of a function of a module, from source alone.

    Raises:
        Unresolved: that does not say it.
    """
    function = source(module)[verb]
    if not callable(function):
        raise Unresolved(verb)
    return options.read(function)


@cache
def source(module: str) -> "_Source":
    """The names of a module; kept, for the verbs of a page share most of them."""
    return _Source(module)


class _Module:
    """A module in an expression: its attributes are resolved from its source."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _member(self._name, name)


class _Source(Mapping[str, Any]):
    """The top-level names of a module, each evaluated when it is asked for."""

    def __init__(self, module: str) -> None:
        path = find_source(module)
        if path is None:
            raise Unresolved(module)
        self._module, self._path = module, path
        self._package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        self._found: dict[str, Any] = {}
        self.nodes: dict[str, Callable[[], Any]] = {}
        for node in ast.parse(read_source(path)).body:
            self._declare(node)

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            if name in self.nodes:
                self._found[name] = self.nodes[name]()
            elif name in _BUILTINS:
                self._found[name] = getattr(builtins, name)
            else:
                raise Unresolved(f"{self._module}.{name}")
        return self._found[name]

    def __iter__(self) -> Any:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def _declare(self, node: ast.stmt) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    self.nodes[alias.asname or name] = partial(_module, name)
            case ast.ImportFrom():
                above = self._package.split(".")[: len(self._package.split(".")) + 1 - node.level] if node.level else []
                origin = ".".join([*above, *([node.module] if node.module else [])])
                for alias in node.names:
                    self.nodes[alias.asname or alias.name] = partial(_member, origin, alias.name)
            case ast.FunctionDef():
                self.nodes[node.name] = partial(self._function, node)
            case ast.ClassDef():
                self.nodes[node.name] = partial(self._dataclass, node)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        self.nodes[target.id] = partial(self._evaluate, value)
                    else:  # a pattern
                        self._forget(target)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self.nodes[name] = partial(self._evaluate, value)
            case _:  # a name that is bound within a block is not known from the source alone
                self._forget(node)

    def _forget(self, node: ast.AST) -> None:
        for part in ast.walk(node):
            for name in _bound(part):
                self.nodes.pop(name, None)

    def _evaluate(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        for part in ast.walk(node):
            if not isinstance(part, _EXPRESSIONS):
                raise Unresolved(ast.unparse(node))
            if isinstance(part, ast.Call) and not _harmless(self._evaluate(part.func)):
                raise Unresolved(ast.unparse(part))
        code = compile(ast.Expression(node), self._module, "eval")
        return eval(code, {"__builtins__": {}}, self)  # literals, names and calls of types, as judged above

    def _hint(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):  # an annotation in quotes
            node = ast.parse(node.value, mode="eval").body
        return self._evaluate(node)

    def _function(self, node: ast.FunctionDef) -> Any:
        if any(ast.unparse(decorator) not in _KEEPING for decorator in node.decorator_list):
            raise Unresolved(node.name)
        given = node.args
        if given.vararg or given.kwarg:
            raise Unresolved(node.name)
        positional = [*given.posonlyargs, *given.args]
        defaults = [*[None] * (len(positional) - len(given.defaults)), *given.defaults, *given.kw_defaults]
        parameters, hints = [], {}
        for argument, default in zip([*positional, *given.kwonlyargs], defaults, strict=True):
            value = inspect.Parameter.empty if default is None else self._evaluate(default)
            parameters.append(inspect.Parameter(argument.arg, inspect.Parameter.KEYWORD_ONLY, default=value))
            if argument.annotation:
                hints[argument.arg] = self._hint(argument.annotation)

        def stand_in() -> None:
            """What `options.read` reads in place of the page's function."""

        stand_in.where = f"{self._path}, line {node.lineno}"  # type: ignore[attr-defined]
        stand_in.__name__, stand_in.__module__ = node.name, self._module
        stand_in.__annotations__ = hints
        stand_in.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return stand_in

    def _dataclass(self, node: ast.ClassDef) -> type:
        (decorator,) = node.decorator_list or (None,)
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if called is None or self._evaluate(called) is not dataclasses.dataclass:
            raise Unresolved(node.name)
        given = decorator.keywords if isinstance(decorator, ast.Call) else []
        words = {str(word.arg): self._evaluate(word.value) for word in given}
        fields: list[Any] = []
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                value = () if line.value is None else (self._evaluate(line.value),)
                fields.append((line.target.id, self._hint(line.annotation), *value))
        bases = tuple(self._evaluate(base) for base in node.bases)
        there = {"__module__": self._module}
        return dataclasses.make_dataclass(node.name, fields, bases=bases, namespace=there, **words)


def _bound(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


def _harmless(called: Any) -> bool:
    if called is dataclasses.field:
        return True
    return isinstance(called, type) and called.__module__ in ("annotated_types", "pathlib", "builtins")


def _module(name: str) -> Any:
    return importlib.import_module(name) if name in _LIGHT else _Module(name)


def _member(module: str, name: str) -> Any:
    if module in _LIGHT:
        return getattr(importlib.import_module(module), name)
    try:
        names = source(module)
    except (Unresolved, SyntaxError, OSError, UnicodeDecodeError) as error:
        raise Unresolved(f"{module}.{name}") from error
    if name in names.nodes:
        return names[name]
    if find_source(f"{module}.{name}"):
        return _Module(f"{module}.{name}")
    raise Unresolved(f"{module}.{name}")
