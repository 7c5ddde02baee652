"""Completion by the shell: verbs, pages, options, choices, datasets and runs, found without importing a page."""

import contextlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mpcli import store
from mpcli.errors import Failed, InputError
from mpcli.registry import TRAINING, VERBS, pages, spoken

VARIABLE = "_MPCLI_COMPLETE"  # a shell that asks for words names itself in it
SCRIPTS = {
    "bash": """\
_mpcli() {
    local IFS=$'\\n'
    COMPREPLY=($(_MPCLI_COMPLETE=bash mpcli "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o default -o bashdefault -F _mpcli mpcli
""",
    "zsh": """\
(( $+functions[compdef] )) || { autoload -U compinit && compinit }
_mpcli() {
    local -a found
    found=(${(f)"$(_MPCLI_COMPLETE=zsh mpcli "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -- $found; else _files; fi
}
compdef _mpcli mpcli
""",
    "fish": """\
function __mpcli
    set -l before (commandline -opc)[2..-1]
    set -l found (_MPCLI_COMPLETE=fish mpcli $before (commandline -ct | string collect --allow-empty) 2>/dev/null)
    if set -q found[1]; printf '%s\\n' $found; else; __fish_complete_path (commandline -ct); end
end
complete -c mpcli -f -a '(__mpcli)'
""",
}


def answer(shell: str, words: list[str], group: Any) -> str:
    """What a shell's script is answered: a word a line.

    Args:
        words: those behind `mpcli`, the last one unfinished; of bash, one text: the line up to the cursor.
        group: the whole command line, whose commands name their options.
    """
    if shell == "bash":
        words = _split(words[0])
    *before, begun = words or [""]
    found = [word for word in dict.fromkeys(candidates(before, begun, group)) if word.startswith(begun)]
    return "".join((shlex.quote(word) if shell == "bash" else word) + "\n" for word in found)


def _split(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:  # within quotes
        words = line.split()
    return words[1:] + ([""] if line[-1:].isspace() else [])


def candidates(before: list[str], begun: str, group: Any) -> Iterable[str]:
    """Every word that may follow; none where files are meant."""
    if not before:
        return _flags(group) if begun.startswith("-") else [*map(spoken, VERBS), *group.commands]
    verb, rest = before[0].replace("-", "_"), before[1:]
    if before[0] == "help":
        return candidates(rest, begun, group)
    if verb in VERBS and verb != "gradcheck":
        return _of_page(verb, rest, begun) if rest else [*_pages(verb), *_runs(verb)]
    command = group.commands.get(spoken(verb))
    if command is None:
        return []
    if verb == "runs":
        page_or_run = [*dict.fromkeys(path.parent.name for path in map(Path, _runs())), *_runs()]
        if rest and rest[-1] == "--page":
            return _pages()
        return page_or_run if rest and not begun.startswith("-") else [*command.commands, *_flags(command)]
    if begun.startswith("-"):
        return _flags(command)
    if verb == "list":
        return map(spoken, VERBS) if rest and rest[-1] == "--verb" else []
    return {"gradcheck": lambda: _pages("gradcheck"), "info": lambda: [*_pages(), *_runs()], "report": _runs}.get(
        verb, list
    )()


def _of_page(verb: str, rest: list[str], begun: str) -> Iterable[str]:
    """Options of a page under a verb, or the values of the one before the cursor."""
    from mpcli import options, signatures, subjects

    own: Iterable[options.Option] = ()
    with contextlib.suppress(Exception):  # of a page that source does not describe, the common options at least
        own = signatures.read(subjects.named(rest[0])[0].module, verb).options
    common = [o for o in options.COMMON if verb in TRAINING or o.name not in options.ONLY_TRAINING]
    known = {option.flag: option for option in (*own, *common)}
    last = known.get(rest[-1]) if len(rest) > 1 else None
    if last and last.type is not bool:
        if get_origin(last.type) is Literal:
            return map(str, get_args(last.type))
        return _datasets() if last.name == "data" else []
    if begun.startswith("-"):
        switches = [f"--no-{o.flag[2:]}" for o in own if o.type is bool]
        return [*known, *switches, "--help"]
    return _runs(verb) if verb == "evaluate" else []


def _flags(command: Any) -> list[str]:
    return [flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")] + ["--help"]


def _pages(verb: str = "") -> list[str]:
    return [name for name, page in pages().items() if not page.taken_by and (not verb or verb in page.verbs)]


def _runs(verb: str = "") -> list[str]:
    """Runs below the root, newest first; for a verb, the training runs of pages that have it."""
    having = set(_pages(verb))
    return [
        str(directory)
        for directory, record in store.all_runs(None)
        if not verb or (record["page"] in having and record.get("verb") in TRAINING)
    ]


def _datasets() -> list[str]:
    from importlib.metadata import entry_points

    return [entry.name for entry in entry_points(group="mpcli.datasets")]


def _shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SCRIPTS:
        raise InputError(
            f"SHELL={os.environ.get('SHELL', '')}: completion is for {', '.join(SCRIPTS)}; set SHELL to one"
        )
    return name


def script() -> str:
    """The script for the user's shell.

    Raises:
        InputError: $SHELL names none that is known.
    """
    return SCRIPTS[_shell()]


def install() -> list[Path]:
    """Write the script where the user's shell finds it; the files that were changed.

    Raises:
        InputError: $SHELL names none that is known.
        Failed: a file cannot be written.
    """
    shell, home = _shell(), Path.home()
    if shell == "fish":
        path = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions" / "mpcli.fish"
    else:
        path = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "mpcli" / f"completion.{shell}"
    changed = [path]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPTS[shell], encoding="utf-8")
        startup, line = home / f".{shell}rc", f"source {shlex.quote(str(path))}\n"
        if shell != "fish" and not (startup.exists() and line in startup.read_text(encoding="utf-8")):
            with startup.open("a", encoding="utf-8") as file:
                file.write(line)
            changed.append(startup)
    except OSError as error:
        raise Failed(f"{error.filename}: cannot be written ({error.strerror}); --show-completion prints it") from error
    return changed
