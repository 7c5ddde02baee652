"""The result of a command on standard output; where that is a path, its metrics for a reader on standard error."""

import json
import statistics
from typing import Any, Literal

from mpcli.execute import Done
from mpcli.progress import tell


def report(done: Done, as_json: bool, quiet: bool) -> None:
    """The path of what a verb made, or with `as_json` an object about it."""
    print(json.dumps(_object(done)) if as_json else done.result)
    metrics = done.record["result"]
    if metrics and not quiet:
        tell(_table_of_seeds(metrics) if done.seeds > 1 else metrics_table([(done.subject, metrics)]))


def report_evaluations(groups: list[list[Done]], as_json: bool) -> None:
    """One table of evaluated runs, with an object a row where it is `as_json`.

    Behind the seeds of a run stands their median, and behind several runs of one page, folds say, the mean of all.
    """
    rows = []
    for group in groups:
        rows += [_object(done) for done in group]
        if len(group) > 1:
            rows.append(_summary(group, "median", str(group[0].directory.parent)))
    alone = [group[0] for group in groups if len(group) == 1]
    if len(alone) == len(groups) > 1 and len({done.record["page"] for done in alone}) == 1:
        rows.append(_summary(alone, "mean", alone[0].record["page"]))
    if as_json:
        print("\n".join(map(json.dumps, rows)))
    else:
        print(metrics_table([(row["subject"], row["metrics"]) for row in rows]))


def _object(done: Done) -> dict[str, Any]:
    return {
        "run": str(done.directory),
        "subject": done.subject,
        "artifacts": [str(done.directory / name) for name in done.record["artifacts"]],
        "metrics": done.record["result"],
        "seconds": done.record["seconds"],
    }


def _summary(group: list[Done], name: Literal["mean", "median"], of: str) -> dict[str, Any]:
    """What several runs have on average, in place of a run."""
    results = [done.record["result"] for done in group]
    shared = [metric for metric in results[0] if all(metric in result for result in results)]
    average = statistics.fmean if name == "mean" else statistics.median
    return {
        "run": of,
        "subject": f"{of} ({name})",
        "artifacts": [],
        "metrics": {metric: average([result[metric] for result in results]) for metric in shared},
        "seconds": round(sum(done.record["seconds"] for done in group), 3),
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
