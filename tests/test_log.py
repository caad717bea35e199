"""What a process logs, as whoever reads its standard error sees it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from candlesync.log import FORMATS

REPOSITORY = Path(__file__).parent.parent

SPEAKER = """
import logging, sys
import structlog, trio
from hypercorn.config import Config
from candlesync import log
from candlesync.edge.server import CountingLifespan

log.configure("info", sys.argv[1])
config = Config()
config.log  # made already, with its own stream and form
config.accesslog = "-"
config.loglevel = "WARNING"
CountingLifespan(lambda *_: None, config, {})

def fail(token):
    raise ExceptionGroup("two", [ValueError("one\\nand a line"), KeyError("other")])

async def speak():
    ours = structlog.get_logger("candlesync.part")
    ours.debug("not said")
    ours.info("serving", addresses=["http://127.0.0.1:1"])
    logging.getLogger("httpx").info("not said")
    logging.getLogger("a.library").warning("it is %s", "odd")
    try:
        fail(token="sesame")
    except* ValueError as group:
        ours.error("a part failed", exc_info=group)
    except* KeyError:
        await config.log.exception("Error in ASGI Framework")
    await config.log.info("not said")

trio.run(speak)
"""


def said(form: str, terminal: bool = False) -> list[str]:
    """The lines of a process whose standard error is a pipe, or a terminal."""
    command: Sequence[str] = [sys.executable, "-c", SPEAKER, form]
    environment = os.environ | {"NO_COLOR": "1", "TERM": "dumb"}
    if not terminal:
        done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, env=environment, timeout=30, check=True)
        assert done.stdout == b""
        return done.stderr.decode().splitlines()
    reader, writer = pty.openpty()
    process = subprocess.Popen(command, stderr=writer, cwd=REPOSITORY, env=environment)
    os.close(writer)
    text = b""
    while True:
        try:
            text += os.read(reader, 65536)
        except OSError:  # how a terminal ends whose last writer is gone
            break
    os.close(reader)
    assert process.wait(10) == 0
    return text.decode().splitlines()


@pytest.mark.parametrize("form", ["json", "auto"])
def test_as_json_each_event_is_one_line(form: str) -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in said(form)]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    assert [(line["level"], line["event"]) for line in lines] == [
        ("info", "serving"),
        ("warning", "it is odd"),
        ("error", "a part failed"),
        ("error", "Error in ASGI Framework"),
    ]
    assert lines[0]["addresses"] == ["http://127.0.0.1:1"]
    assert [line.get("logger") for line in lines] == [None, "a.library", None, "hypercorn.error"]
    assert "ValueError: one" in lines[2]["exception"]
    assert "KeyError: 'other'" in lines[3]["exception"]


@pytest.mark.parametrize(("form", "terminal"), [("console", False), ("console", True), ("auto", True)])
def test_on_a_terminal_it_is_for_people(form: str, terminal: bool) -> None:
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in said(form, terminal)]
    events = [line for line in lines if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z \[", line)]
    assert [re.sub(r".*?\] (.+?)(  .*| \[.*|$)", r"\1", line) for line in events] == [
        "serving",
        "it is odd",
        "a part failed",
        "Error in ASGI Framework",
    ]
    assert any("ValueError: one" in line for line in lines)


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_values_of_variables_stand_in_no_log(form: str) -> None:
    text = "\n".join(said(form))
    assert "fail(token=" in text or "fail" in text
    assert "token = " not in text
    assert text.count("sesame") <= 2, "in the source line of the traceback alone"


@pytest.mark.parametrize("form", FORMATS)
def test_what_others_wrote_begins_no_line_of_its_own_and_paints_nothing(form: str) -> None:
    program = """
import logging, structlog
from candlesync import log
log.configure("info", %r)
odd = "GET /a\\n[error] forged\\r\\x1b[31m\\u202e HTTP/1.1"
logging.getLogger("hypercorn.access").warning("%%s", odd)
structlog.get_logger("a").warning("b", path=odd, plain="\\x1b[31mc")
"""
    environment = os.environ | {"NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-c", program % form]
    done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, env=environment, timeout=30, check=True)
    text = done.stderr.decode()
    assert len(text.splitlines()) == 2
    assert not any(odd in text for odd in ("\x1b[31m", "\r", "\u202e"))
    assert text.count("forged") == 2
