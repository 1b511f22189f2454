"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

import torch


def describe() -> str:
    """One line: processor, cores, load, versions, date."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{_processor()}, {os.cpu_count()} cores (load {load}), {torch.get_num_threads()} torch thread, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {date.today().isoformat()}"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
