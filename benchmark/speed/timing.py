"""Processor time, which other programs on the machine do not lengthen as they do wall time."""

from __future__ import annotations

import os


def processor_seconds() -> float:
    """Return the processor time of this process and of those of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
