"""Plugins: where they are, what they say of themselves, and how to load one."""

from benchmark.registry.discovery import Registry, asking, discover, load
from benchmark.registry.frames import own_frame
from benchmark.registry.info import BrokenPlugin, MethodInfo, ParameterInfo, PluginError

__all__ = [
    "BrokenPlugin",
    "MethodInfo",
    "ParameterInfo",
    "PluginError",
    "Registry",
    "asking",
    "discover",
    "load",
    "own_frame",
]
