"""Templates of new plugins, and writing them."""

from benchmark.scaffold.writing import Written, write_method

__all__ = ["Written", "write_method"]
