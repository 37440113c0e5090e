"""What of a plugin's source makes its runs stale: its code, not its words."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmark.registry.sources import code_of, part_versions, plugin_digest

PLUGIN = '''"""A method."""
import math  # the logarithm

NOTE = """
# no comment, but part of a text

and its empty line
"""


class Average(Method[Settings]):
    """It averages."""

    summary = "an average"
    deviations = (
        "none, so far",
        "(é)",
    )
    uses = frozenset({"weights"})

    def of(self, values):
        """Return it."""
        # Empty ones have none.
        if not values:
            return math.nan
        return sum(values) / len(values)
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A method."""\n', ""),
        ('"""A method."""', '"""Another\n\nmethod.\n"""  # said twice\n'),
        ("  # the logarithm", ""),
        ('"""It averages."""', '"""Is 10 % off."""'),
        ('summary = "an average"', 'summary = "the mean"'),
        ('        "none, so far",\n', ""),
        ("        # Empty ones have none.\n", "\n\n"),
        ('"""Return it."""', "'Give it.'"),
        ("\n", "\r\n"),
    ],
)
def test_words_are_no_code(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    before = plugin_digest(path)
    assert old in PLUGIN
    path.write_bytes(PLUGIN.replace(old, new).encode())
    assert plugin_digest(path) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# no comment, but", "# no comment but"),
        ("text\n\nand", "text\nand"),
        ("math.nan", "0.0"),
        ('"weights"', '"labels"'),
        ("        if not values:\n            return math.nan\n", ""),
        ("import math", "import cmath as math"),
        ('summary = "an average"', 'summary: str = "the mean"'),
        ('    summary = "an average"', '    summary = "an average"; rate = 0.1'),
        ('"""Return it."""', '"""Return it."""; values = values[1:]'),
        ("return sum(values) / len(values)", "deviations = len(values); return sum(values)"),
    ],
)
def test_code_is(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    before = plugin_digest(path)
    assert old in PLUGIN
    path.write_text(PLUGIN.replace(old, new))
    assert plugin_digest(path) != before


def test_members_of_an_enumeration_decide() -> None:
    member = "class Kind(StrEnum):\n    source = 'a'"
    assert code_of(member) == member


def test_a_file_that_is_no_python_counts_whole(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text("def broken(:\n")
    before = plugin_digest(path)
    path.write_text("def broken(:\n# twice\n")
    assert plugin_digest(path) != before
    with pytest.raises(SyntaxError):
        code_of(path.read_text())


def test_no_expression_of_the_blocks_is_lost() -> None:
    folder = Path(__file__).resolve().parents[2] / "methods" / "blocks"
    texts = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))]
    # Of a body of words alone nothing is left, which is no Python.
    whole = [text for text in texts if "Method[" not in text and is_python(code_of(text))]
    assert len(whole) > 15
    for text in whole:
        assert expressions(code_of(text)) == expressions(text)


def is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def expressions(source: str) -> list[str]:
    """Return all expressions but texts, which docstrings are, too."""
    return sorted(
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant)
    )


def test_a_block_is_as_new_as_its_code(tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "loss.py").write_text("RATE = 1\n")
    plugin = tmp_path / "plugin.py"
    plugin.write_text("from blocks.loss import RATE\n")
    roots = {"blocks": tmp_path / "blocks"}
    before = part_versions(plugin, roots)
    (tmp_path / "blocks" / "loss.py").write_text('"""A loss."""\n\nRATE = 1  # the best\n')
    assert part_versions(plugin, roots) == before
    (tmp_path / "blocks" / "loss.py").write_text("RATE = 2\n")
    assert part_versions(plugin, roots) != before
