"""Write docs/terminal.svg: commands that really run, with what they print, as an animation for the README.

    python tools/make_terminal.py [--out docs/terminal.svg]

Everything runs in an empty folder. Each line appears when it was printed; pauses are cut to PAUSE seconds.
"""

import argparse
import html
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = (
    "mpcli train vae --steps 300 --out runs/digits | mpcli sample - --out digits.png",
    "mpcli evaluate runs/digits",
    "mpcli marching-cubes torus --resolution 64 --out torus.ply",
)
COLUMNS = 100
PAUSE = 1.5  # seconds, at most, between two lines
TYPING = 0.03  # seconds a character
ROW, COLUMN, EDGE = 18, 8, 14  # pixels
HOLD = 4  # seconds that the last picture stays


def played(command: str, folder: Path) -> list[tuple[float, str]]:
    """The lines that a command prints, each with the seconds since the line before."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    found, last = [], time.monotonic()
    for line in process.stdout:
        now = time.monotonic()
        found.append((now - last, line.rstrip("\n")[:COLUMNS]))
        last = now
    if process.wait():
        raise RuntimeError(f"{command}: exited with {process.returncode}")
    return found


def drawn(scenes: list[tuple[str, list[tuple[float, str]]]]) -> str:
    """The animation: lines that become visible one after another, and all of them again from the beginning."""
    rows, clock = [], 0.5
    for command, lines in scenes:
        rows.append((clock, f"$ {command}", "command"))
        clock += TYPING * len(command)
        for pause, line in lines:
            clock += min(PAUSE, pause)
            rows.append((clock, line, "line"))
        clock += 1
    whole = clock + HOLD
    width, height = COLUMN * COLUMNS + 2 * EDGE, ROW * len(rows) + 2 * EDGE
    texts = []
    for number, (begin, line, kind) in enumerate(rows):
        y = EDGE + ROW * number + 13
        share = begin / whole
        texts.append(
            f'<text class="{kind}" x="{EDGE}" y="{y}">{html.escape(line)}<animate attributeName="opacity" '
            f'calcMode="discrete" values="0;1" keyTimes="0;{share:.4f}" dur="{whole:.2f}s" repeatCount="indefinite"/>'
            "</text>"
        )
    style = "text{font:13px monospace;fill:#d8dee4;white-space:pre}.command{fill:#7ee787}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<style>{style}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="#161b22"/>{"".join(texts)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "terminal.svg")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        scenes = [(command, played(command, Path(folder))) for command in COMMANDS]
    out.write_text(drawn(scenes), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
