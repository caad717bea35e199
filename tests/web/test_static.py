"""The JavaScript client by itself: its tests are JavaScript, and run by the test runner of the node in playwright."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import playwright
import pytest

NODE = Path(playwright.__file__).parent / "driver" / "node"
TESTS = sorted((Path(__file__).parent / "static").glob("*.test.mjs"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_the_javascript(file: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NODE_")}
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", file],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# fail 0\n" in done.stdout
    assert "\n# pass 0\n" not in done.stdout


def test_there_are_tests() -> None:
    assert [file.name for file in TESTS] == ["candlesync.test.mjs", "search.test.mjs"]
