"""Start the command line in several processes on this machine, as torchrun does."""

import os
import subprocess
import sys
from pathlib import Path


def torchrun(
    cwd: Path, *arguments: object, site: Path | None = None, processes: int = 2
) -> subprocess.CompletedProcess:
    """Run `mpcli ARGUMENTS` in so many processes; `site` is a folder of toy distributions."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, "-m", *launcher, "-m", "mpcli", *map(str, arguments)]
    path = os.pathsep.join(filter(None, [str(site or ""), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
