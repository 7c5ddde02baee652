"""How long the command line takes to answer, against a Python that does nothing.

Start-up is what one waits for, so this is wall time (of an idle machine, if the figure is to mean anything), with CPU
time beside it. The help of a page imports that page, and with it torch.

    python benchmarks/startup.py
"""

import sys
from pathlib import Path

from protocol import compare

MPCLI = str(Path(sys.executable).with_name("mpcli"))
NOTHING = [sys.executable, "-c", "pass"]

if __name__ == "__main__":
    for arguments in (["--help"], ["train", "--help"], ["list"], ["train", "vae", "--help"]):
        command = " ".join(["mpcli", *arguments])
        for clock in ("wall", "CPU"):
            compare(
                f"`{command}`, {clock} time", [MPCLI, *arguments], NOTHING, wall=clock == "wall", packages=["typer"]
            )
    compare(
        "`mpcli train vae --help`, CPU time, against `import torch`",
        [MPCLI, "train", "vae", "--help"],
        [sys.executable, "-c", "import torch"],
        packages=["typer"],
    )
