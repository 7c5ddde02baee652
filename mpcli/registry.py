"""Which pages there are, found through entry points and described by reading their source.

Nothing here imports a page except `Page.load`, so one broken or slow plugin cannot spoil a command about another.
"""

import ast
import contextlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType

from mpcli.errors import Failed, InputError

GROUP = "mpcli.plugins"
VERBS = ("train", "sample", "render", "marching_cubes", "fit_smpl", "rl_run", "evaluate", "gradcheck")
TRAINING = ("train", "rl_run")  # the verbs whose run holds a model, and which --resume continues

_DEFINED = re.compile(r"^(?:async )?def (\w+)\(", re.MULTILINE)
_IMPORTED = re.compile(r"^from [.\w]+ import (\((?:#[^\n]*|[^)#])*\)|(?:\\\n|[^\n])*)", re.MULTILINE)
_NAME = re.compile(r"(?:\w+\s+as\s+)?(\w+)")
_ASSIGNED = re.compile(rf"^({'|'.join(VERBS)})\b[^=\n(]*=", re.MULTILINE)
_COMMENT = re.compile(r"#[^\n]*")
_CHAPTER = re.compile(r"Chapter (\d+)\.\s*(.*)")
_LISTED = re.compile(r"^(\w+): ", re.MULTILINE)


def find_source(module: str) -> Path | None:
    """The source file of `module`, located without importing it or its parents; None where there is none."""
    search: Sequence[str] | None = None
    spec = None
    for depth in range(module.count(".") + 1):
        part = ".".join(module.split(".")[: depth + 1])
        spec = importlib.machinery.PathFinder.find_spec(part, search)
        if spec is None:
            return None
        if spec.origin is None and search is not None:  # a namespace package asks its parent, which is not imported
            search = [str(Path(folder) / part.rpartition(".")[2]) for folder in search]
        else:
            search = list(spec.submodule_search_locations or ())
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def read_source(path: Path) -> str:
    """The text of a source file, in UTF-8 or in the encoding that its first lines name."""
    data = path.read_bytes()
    try:
        return data.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return importlib.util.decode_source(data)


def _end_of_docstring(source: str) -> int:
    opening = re.match(r'(?:\s*#[^\n]*\n|\s)*[rR]?("""|\'\'\')', source)
    return source.find(opening.group(1), opening.end()) + 3 if opening else 0


def _docstring(source: str) -> str:
    # Parsing stops at the end of the docstring: a hundred whole pages would take a second.
    head = source[: _end_of_docstring(source)] or source
    try:
        return ast.get_docstring(ast.parse(head)) or ""
    except SyntaxError:
        return ""


@dataclass(frozen=True)
class Page:
    """One entry of the book: a name, the module behind it, and the distribution that brought it."""

    name: str
    module: str
    distribution: str
    version: str
    taken_by: str = ""  # the distribution that has this name already

    @cached_property
    def source(self) -> str | None:
        """The text of the page, or None where it cannot be read."""
        try:
            path = find_source(self.module)
            return read_source(path) if path else None
        except (OSError, UnicodeDecodeError, SyntaxError, ImportError):
            return None

    @cached_property
    def docstring(self) -> str:
        """The whole docstring, read from the source."""
        return _docstring(self.source or "")

    @property
    def title(self) -> str:
        """The first line of the docstring."""
        return self.docstring.partition("\n")[0].strip()

    @cached_property
    def verbs(self) -> tuple[str, ...]:
        """The verbs that the page defines or imports at its top level, in the order of `VERBS`."""
        source = self.source or ""
        code = source[_end_of_docstring(source) :]
        found = set(_DEFINED.findall(code))
        for names in _IMPORTED.findall(code):
            found.update(_NAME.findall(_COMMENT.sub("", names)))
        return tuple(verb for verb in VERBS if verb in found)

    @property
    def chapter(self) -> tuple[int, str]:
        """Number and title of the chapter; third-party pages stand behind the book, under their distribution's name."""
        found = _CHAPTER.match(_chapter_docstring(self.module.rpartition(".")[0]))
        return (int(found.group(1)), found.group(2)) if found else (1000, self.distribution)

    @property
    def broken(self) -> str:
        """Why the page cannot be used as far as its source tells, or an empty string."""
        if self.taken_by:
            return f"the name {self.name} is taken by {self.taken_by}"
        if self.source is None:
            return f"no source of module {self.module} was found"
        try:
            tree = ast.parse(self.source, self.module)
        except SyntaxError as error:
            return f"SyntaxError in {self.module}, line {error.lineno}: {error.msg}"
        if _ASSIGNED.search(self.source):
            for name, value in _assigned(tree):
                return f"{name} in {self.module} is {value}; a verb is a function"
        return "" if self.verbs else f"{self.module} defines no verb ({', '.join(VERBS)})"

    def load(self) -> ModuleType:
        """The imported page.

        Raises:
            Failed: the page is broken; the message says why and which distribution it came from.
        """
        if self.taken_by:
            raise Failed(f"page {self.name} of {self.distribution} cannot be used: {self.broken}")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                return importlib.import_module(self.module)
        except (Exception, SystemExit) as error:
            import traceback

            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}, line {frame.lineno}"
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise Failed(
                f"page {self.name} of {self.distribution} {self.version} does not import: {reason} ({where})"
            ) from error

    def function(self, verb: str) -> object:
        """The function of the page that is `verb`.

        Raises:
            InputError: the page has no such verb.
            Failed: the page is broken.
        """
        found = getattr(self.load(), verb, None)
        if found is None:
            others = ", ".join(page.name for page in pages().values() if verb in page.verbs)
            raise InputError(
                f"{self.name} has no verb {spoken(verb)}: it has {', '.join(map(spoken, self.verbs)) or 'none'}; "
                f"pages with {spoken(verb)}: {others or 'none'}"
            )
        if not callable(found):
            raise Failed(
                f"page {self.name} of {self.distribution} {self.version} cannot be used: {verb} in {self.module} is "
                f"{found!r}; a verb is a function"
            )
        return found


def spoken(name: str) -> str:
    """A Python name as it is typed on the command line."""
    return name.replace("_", "-")


def _assigned(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The verbs that a page makes a plain value, such as 3, with that value."""
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        try:
            value = repr(ast.literal_eval(node.value))
        except ValueError:
            continue  # a call or a name: only the imported page can tell
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from ((t.id, value) for t in targets if isinstance(t, ast.Name) and t.id in VERBS)


@cache
def _chapter_docstring(package: str) -> str:
    try:
        path = find_source(package) if package else None
        return _docstring(path.read_text(encoding="utf-8")) if path else ""
    except (OSError, UnicodeDecodeError, ImportError):
        return ""


def _entries() -> Iterator[Page]:
    from importlib.metadata import Distribution
    from importlib.metadata import distributions as installed

    own = "mpcli"
    distributions: dict[str, Distribution] = {}
    for distribution in installed():
        if any(entry.group == GROUP for entry in distribution.entry_points):
            distributions.setdefault(distribution.name, distribution)
    for name in sorted(distributions, key=lambda name: (name != own, name)):
        distribution = distributions[name]
        for entry in distribution.entry_points:
            if entry.group == GROUP:
                yield Page(entry.name.replace("-", "_"), entry.value, name, distribution.version)


@cache
def pages() -> dict[str, Page]:
    """Every declared page by name, in reading order; a name declared twice stays with whoever had it first."""
    found: dict[str, Page] = {}
    for page in _entries():
        holder = found.get(page.name)
        if holder:
            key = f"{page.name} ({page.distribution})"
            found[key] = Page(page.name, page.module, page.distribution, page.version, holder.distribution)
        else:
            found[page.name] = page

    def place(item: tuple[str, Page]) -> tuple[int, str, int, str]:
        page = item[1]
        # Entry points come sorted by name out of an installed distribution; the chapter's docstring lists its pages
        # in reading order.
        listed = _LISTED.findall(_chapter_docstring(page.module.rpartition(".")[0]))
        return (*page.chapter, listed.index(page.name) if page.name in listed else len(listed), page.name)

    return dict(sorted(found.items(), key=place))


def get(name: str) -> Page:
    """The page called `name` (a hyphen is accepted for an underscore).

    Raises:
        InputError: there is none; the message suggests the closest names.
    """
    page = pages().get(name.replace("-", "_"))
    if page:
        return page
    import difflib

    close = difflib.get_close_matches(name.replace("-", "_"), pages(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`mpcli list` shows every page"
    raise InputError(f"there is no page or run directory {name}: {hint}")
