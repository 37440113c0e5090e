"""The engine: specs, plugin contract, federation, models, wire, store, command line."""

__version__ = "0.1.0"
