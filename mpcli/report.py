"""The result of a command on standard output, its metrics for a reader on standard error."""

import json
from typing import Any

from mpcli.execute import Done
from mpcli.progress import tell


def report(found: list[Done], as_json: bool, quiet: bool) -> None:
    """The result on standard output, the metrics for a reader on standard error."""
    if as_json:
        objects = [_object(done) for done in found]
        print(json.dumps(objects[0] if len(objects) == 1 else objects))
    else:
        for done in found:
            print(done.result)
    if not quiet and any(done.record["result"] for done in found):
        if found[0].seeds > 1:
            tell(_table_of_seeds(found[0].record["result"]))
            return
        rows = [(str(done.record["parent"] or done.directory), done.record["result"]) for done in found]
        tell(metrics_table(rows))


def _object(done: Done) -> dict[str, Any]:
    return {
        "run": str(done.directory),
        "artifacts": [str(done.directory / name) for name in done.record["artifacts"]],
        "metrics": done.record["result"],
        "seconds": done.record["seconds"],
    }


def metrics_table(rows: list[tuple[str, dict[str, float]]]) -> str:
    """Runs and their metrics as aligned text, one row a run."""
    names = list(dict.fromkeys(name for _, metrics in rows for name in metrics))
    cells = [["run", *names]]
    cells += [[label, *(f"{m[name]:.6g}" if name in m else "" for name in names)] for label, m in rows]
    return aligned(cells)


def _table_of_seeds(metrics: dict[str, float]) -> str:
    """One row a metric: its median over the seeds, and the least and the greatest, which follow it."""
    values = [f"{value:.6g}" for value in metrics.values()]
    rows = [[name, *values[3 * i : 3 * i + 3]] for i, name in enumerate(list(metrics)[::3])]
    return aligned([["metric", "median", "min", "max"], *rows])


def aligned(cells: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
