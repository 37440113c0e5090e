"""Mosaic (arXiv:2505.19699): client generators, experts per class, a meta model, distillation."""
