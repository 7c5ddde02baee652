"""Write the CPU seconds of the tests, by part, into CONTRIBUTING.md.

MPCLI_TEST_COST=cost.txt tox -e tests && python tools/test_cost.py cost.txt
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- cost of the tests: tools/test_cost.py -->", "<!-- end -->"


def part(nodeid: str) -> str:
    """The room that a test belongs to."""
    path = Path(nodeid.partition("::")[0])
    return path.parts[1] if len(path.parts) > 2 else path.stem.removeprefix("test_")


def table(lines: list[str]) -> str:
    """One row a part: how many tests, and their CPU seconds."""
    tests: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    for line in lines:
        cost, _, nodeid = line.partition(" ")
        tests[part(nodeid)] += 1
        seconds[part(nodeid)] += float(cost)
    rows = sorted(seconds, key=lambda name: -seconds[name])
    body = [f"| {name} | {tests[name]} | {seconds[name]:.0f} |" for name in rows]
    total = f"| all | {sum(tests.values())} | {sum(seconds.values()):.0f} |"
    return "\n".join(["| part | tests | CPU seconds |", "|---|---:|---:|", *body, total])


if __name__ == "__main__":
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = table(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
    new = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", f"{BEGIN}\n{found}\n{END}", text, flags=re.DOTALL)
    (ROOT / "CONTRIBUTING.md").write_text(new, encoding="utf-8")
