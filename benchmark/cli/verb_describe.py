"""``describe``: the page of one method, from its plugin's metadata."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.parsing import Parser, new_parser
from benchmark.registry import MethodInfo, discover


def parser() -> Parser:
    """Return the parser of ``describe``."""
    made = new_parser("describe", "Says what a method does, takes, uploads and supports.")
    made.add_argument("methods", nargs="+", metavar="METHOD", help="see `list methods`")
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Print the pages; return the exit status."""
    registry = discover()
    infos = [registry.info(name) for name in values.methods]
    console = output.stdout()
    for index, info in enumerate(infos):
        if index:
            console.print()
        _describe(console, info)
    return 0


def _describe(console: Console, info: MethodInfo) -> None:
    output.say(console, f"{info.name}: {info.summary}")
    rows = list(_facts(info))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        output.say(console, f"  {name:<{width}}  {text}")
    if not info.parameters:
        output.say(console, "  parameters: none")
        return
    parameters = [
        (item.name, item.type, json.dumps(item.default), item.unit, item.source, item.meaning)
        for item in info.parameters
    ]
    columns = ("parameter", "type", "default", "unit", "source", "meaning")
    console.print(output.table(f"parameters (--set {info.name}.NAME=VALUE)", columns, parameters))


def _facts(info: MethodInfo) -> Iterator[tuple[str, str]]:
    if info.kind == "reference":
        yield "kind", "reference: a row to compare with; it may see what no method may"
    else:
        yield "kind", info.kind
    if info.title:
        link = f", {info.link}" if info.link else ""
        yield "paper", f"{info.title} ({info.year}){link}"
    else:
        yield "paper", "none"
    yield "implemented", info.implemented or "not stated"
    for index, text in enumerate(info.deviations):
        yield ("" if index else "deviations"), text
    if not info.deviations:
        yield "deviations", "none stated"
    yield "uses", ", ".join(info.uses) or "nothing beyond the images on the device"
    yield "uploads", info.uploads or "not stated"
    yield "scenarios", info.scenarios
    yield "plugin", f"{info.path} (digest {info.plugin})"
    if info.parts:
        yield "parts", ", ".join(f"{name} {version}" for name, version in info.parts.items())
