"""Measurements of single parts, run by hand: ``python -m benchmark.studies.NAME --help``."""
