"""The command: what it prints of a failure repeats it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.simulation.__main__ import main
from scripts.simulation.schedule import read
from tests.simulation.broken import BREAKS


def test_a_failure_is_shrunk_and_can_be_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    BREAKS["published before the commit"].patch(monkeypatch)
    # Of seed 3, which has a store inside of the process: the mistake is in what such a store is used for.
    found = CliRunner().invoke(main, ["--first", "3", "--seeds", "1", "--days", "0.02", "--jobs", "1"])
    assert found.exit_code == 1
    command = re.search(r"scripts/simulate (--seed 3 --schedule (\S+))", found.output)
    assert command is not None, found.output
    assert read(Path(command[2]).read_bytes()).events == (), "it takes none"
    assert "1 of 1 seeds broke an invariant" in found.output
    again = CliRunner().invoke(main, command[1].split())
    assert again.exit_code == 1
    assert again.output.strip() in found.output, "the same history, to the last digit"


def test_a_schedule_is_printed_and_a_bad_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    printed = CliRunner().invoke(main, ["--seed", "5", "--print"]).output
    path.write_text(printed)
    assert CliRunner().invoke(main, ["--schedule", str(path), "--print"]).output == printed
    refused = CliRunner().invoke(main, ["--schedule", str(path), "--seed", "6"])
    assert refused.exit_code == 2
    assert "is a schedule of seed 5" in refused.output
    path.write_text(printed.replace('"at":', '"when":', 1))
    refused = CliRunner().invoke(main, ["--schedule", str(path)])
    assert refused.exit_code == 2
    assert "is no schedule" in refused.output
    assert "when" in refused.output
