"""How a benchmark tells its result: a table on the terminal, and JSON with what it was measured on."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from driftline.cli.output import print_table
from driftline.records import iso


def announce(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print figures as a two-column table."""
    print_table(("figure", ">value"), rows, title=f"\n{title}")


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write the result with commit, machine and command; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result | circumstances(), indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


def circumstances() -> dict[str, Any]:
    """Commit, machine, versions, command and time of this run."""
    import torch

    return {
        "at": iso(datetime.now(UTC)),
        "commit": commit(),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(terse=True),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit() -> str:
    """The commit measured, marked if the tree had changes."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
