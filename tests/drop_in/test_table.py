"""The README's table of clients says what their programs do."""

from __future__ import annotations

import re

from tests.drop_in.clients import PROGRAMS
from tests.whole.programs import REPOSITORY

_CODE = re.compile(r"`([^`]*127\.0\.0\.1:8000[^`]*)`")


def test_each_line_to_change_is_one_of_a_program() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    table = text.partition("| client | the lines to change |")[2].partition("\n\n")[0]
    lines = [found for row in table.splitlines() for found in _CODE.findall(row)]
    programs = {path.name: _plain(path.read_text()) for path in PROGRAMS.iterdir()}
    used = {line: [name for name, program in programs.items() if _plain(line) in program] for line in lines}
    assert all(used.values()), used
    assert {name for names in used.values() for name in names} == programs.keys()


def _plain(text: str) -> str:
    """The same text, however it names the server and quotes strings."""
    for address in ("127.0.0.1:8000", "${process.argv[2]}", "${host}", "{host}"):
        text = text.replace(address, "SERVER")
    return re.sub(r"""f"|[`'"]""", '"', text)
