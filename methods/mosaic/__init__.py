"""Mosaic (arXiv:2505.19699): client generators, experts per class, a meta model, distillation."""

from methods.mosaic.plugin import Mosaic

__all__ = ["Mosaic"]
