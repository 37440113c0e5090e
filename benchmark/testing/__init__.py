"""The contract test suite, for authors of methods.

In a plugin's test file::

    from benchmark.testing import check_method

    def test_contract():
        check_method("my_method")

or, one test a check::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(Bench("my_method"))
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmark.testing.bench import Bench
from benchmark.testing.checks import CHECKS

__all__ = ["CHECKS", "Bench", "check_method"]


def check_method(name: str, **overrides: Any) -> None:
    """Run all contract checks on a method.

    Parameters
    ----------
    name : str
        The method.
    **overrides
        Settings of the experiment on top of profile ``smoke``, such as ``set`` or ``clients``.

    Raises
    ------
    AssertionError
        At the first check that fails, with what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        bench = Bench(name, overrides, folder=Path(folder))
        for check in CHECKS:
            check(bench)
