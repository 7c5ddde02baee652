"""`mpcli report RUN`: one HTML page that holds all there is to see of a run, and needs no other file and no network."""

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from mpcli import files, store
from mpcli.errors import InputError
from mpcli.options import as_text
from mpcli.registry import pages, spoken

PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".svg": "image/svg+xml"}
FILMS = {".mp4": "video/mp4"}
MOST = 20_000_000  # bytes of a picture that is taken into the page
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; } td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; } img, video { max-width: 100%; }
figure { margin: 1rem 0; } figcaption { color: #666; font-size: .9rem; }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd; } pre { background: #262626; } img { background: #fff; }
}
"""


def write(directory: Path, out: Path) -> None:
    """Write the page of a run.

    Raises:
        InputError: the run is damaged, or the page cannot be written.
    """
    files.write(out, page(directory).encode())


def page(directory: Path) -> str:
    """The HTML text.

    Raises:
        InputError: the run is damaged.
    """
    record, used = store.read_record(directory), files.read_json(directory / "config.json")
    metrics = store.numbers(record)
    title = store.heading(record["page"], used, metrics)
    verb = spoken(str(record.get("verb")))
    about = {name: record.get(name) for name in ("status", "started", "seconds", "distribution", "version")}
    book = pages().get(record["page"])
    parts = [
        f"<h1>{escape(title)}</h1>",
        _section("Metrics", _table({name: f"{value:.6g}" for name, value in metrics.items()})),
        _section("Curves", "".join(_figure(path, directory) for path in sorted(directory.glob("curves.*")))),
        _section("Pictures", "".join(_pictures(directory))),
        _section("Command", _text(directory / "command.txt")),
        _section("Options", _table({name: as_text(files.tuples(value)) for name, value in used.items()})),
        _section("Method", f"<pre>{escape(book.docstring)}</pre>" if book and book.docstring else ""),
        _section("Run", _table({"directory": directory, "verb": verb} | about)),
        _section("Environment", _text(directory / "env.json")),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:; media-src data:">\n'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n" + "".join(parts) + "</body></html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<h2>{heading}</h2>\n{body}\n" if body else ""


def _table(values: Mapping[str, Any]) -> str:
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in values.items())
    return f"<table>{''.join(rows)}</table>" if values else ""


def _text(path: Path) -> str:
    try:
        return f"<pre>{escape(path.read_text(encoding='utf-8', errors='replace').strip())}</pre>"
    except OSError:
        return ""


def _pictures(directory: Path) -> Iterable[str]:
    """Those of the run, then those of the runs that were made from it."""
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in PICTURES | FILMS and path.is_file() and path.stem != "curves":
            yield _figure(path, directory)
    for other, record in reversed(list(store.all_runs(None))):
        parent, artifacts = record.get("parent"), record.get("artifacts")
        if parent and Path(str(parent)).resolve() == directory.resolve() and isinstance(artifacts, list):
            for path in (other / str(name) for name in artifacts):
                if path.suffix.lower() in PICTURES | FILMS and path.is_file():
                    yield _figure(path, other.parent)


def _figure(path: Path, base: Path) -> str:
    name = escape(str(path.relative_to(base) if path.is_relative_to(base) else path))
    kind = (PICTURES | FILMS).get(path.suffix.lower())
    if kind is None:
        return ""
    try:
        if path.stat().st_size > MOST:
            return f"<p>{name}: {path.stat().st_size // 1_000_000} MB, left out</p>"
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it belongs to the run") from error
    source = f'src="data:{kind};base64,{data}"'
    shown = f"<video {source} controls loop></video>" if kind in FILMS.values() else f'<img {source} alt="{name}">'
    return f"<figure>{shown}<figcaption>{name}</figcaption></figure>\n"
