"""Describes the machine of a benchmark."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path


def machine() -> dict[str, object]:
    """Processor, usable cores, memory, system."""
    return {
        "processor": _first(r"^model name\s*: (.+)$", "/proc/cpuinfo") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(_first(r"^MemTotal:\s+(\d+)", "/proc/meminfo") or 0) // 1024,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def versions(redis: str) -> dict[str, str]:
    """Versions of all programs that took part. ``redis`` is the path of the server."""
    printed = subprocess.run([redis, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.search(r"(\w+) (?:server )?v=(\S+)", printed)
    return {
        "legato": version("legato"),
        "python": platform.python_version(),
        "redis-py": version("redis"),
        "uvloop": version("uvloop"),
        "redis_server": f"{found[1]} {found[2]}" if found else printed.strip(),
    }


def _first(pattern: str, path: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""
