"""The recipes of the README, to be tried as they stand there."""

from __future__ import annotations

from tests.whole.programs import REPOSITORY


def recipe(file: str) -> str:
    """The block of the README that says in its first line which file it is for."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = [block.partition("\n")[2] for block in text.split("```")[1::2]]
    (found,) = [block for block in blocks if block.startswith(f"# {file}\n")]
    return found


def with_own(text: str, replacements: dict[str, str]) -> str:
    """A recipe with a test's own addresses and paths: each of the recipe's must be there."""
    for theirs, own in replacements.items():
        assert theirs in text, f"the recipe says nothing of {theirs!r}"
        text = text.replace(theirs, own)
    return text
