"""The OpenAPI document says what the server does: asked of the server, parameter by parameter, and by schemathesis."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import STDOUT
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema_rs
import msgspec
import pytest
import trio

from candlesync.binance.venue import VENUES, Venue
from candlesync.core.interval import INTERVALS
from candlesync.web.access import OPEN, AccessSettings, Token
from candlesync.web.openapi import Error, Operation, Reply, _Schemas, operations
from candlesync.web.refusal import STATUSES
from tests.builders import forming, minute, minutes
from tests.history import Exchange
from tests.web.builders import Web, on_a_port

ROOT = Path(__file__).parent.parent.parent

EXCUSED = {
    "/": "a page for people",
    "/docs": "a page for people",
    "/static/<name>": "the files of the pages",
    "/openapi.json": "the document itself",
    "/binance/": "what Binance has and this server has not: private paths are refused",
    "/binance/<path:rest>": "the same",
}
"""Routes that are not in the document, and why."""


async def document(web: Web) -> Any:
    answer = await web.get("/openapi.json")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json


def described(made: Any) -> Iterator[tuple[str, str, Any]]:
    """Each path with its method and what is said of it."""
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_each_route_is_in_the_document_or_excused() -> None:
    routes = {rule.rule: operation for rule, operation in operations(Web().app)}
    assert {path for path, operation in routes.items() if operation is None} == EXCUSED.keys()


async def test_what_is_in_the_document_is_there() -> None:
    web = Web()
    made = await document(web)
    assert made["openapi"] == "3.1.0"
    rules = {re.sub(r"<([^>]*:)?([^>]*)>", r"{\2}", rule.rule): rule for rule, _ in operations(web.app)}
    for path, method, operation in described(made):
        assert method.upper() in (rules[path].methods or ())
        taken = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert taken == rules[path].arguments
        assert operation["summary"]
    names = [operation["operationId"] for _, _, operation in described(made)]
    assert len(names) == len(set(names))


async def test_its_schemas_are_schemas_and_its_examples_keep_to_them() -> None:
    made = await document(Web())
    for schema in made["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    for _, _, operation in described(made):
        for parameter in operation["parameters"]:
            jsonschema_rs.meta.validate(parameter["schema"])
            if "example" in parameter:
                jsonschema_rs.validate(parameter["schema"], parameter["example"])


def ask(path: str, operation: Any, changed: str, value: object) -> str:
    """A request with the examples of what is required, and one parameter with a value."""
    given = {
        parameter["name"]: (parameter["in"], parameter["example"])
        for parameter in operation["parameters"]
        if parameter["required"]
    }
    place = next(parameter["in"] for parameter in operation["parameters"] if parameter["name"] == changed)
    given[changed] = (place, value)
    in_path = {name: quote(str(text), safe="") for name, (where, text) in given.items() if where == "path"}
    in_query = {name: text for name, (where, text) in given.items() if where == "query"}
    return f"{path.format(**in_path)}?{urlencode(in_query)}"


def bounds(operation: Any) -> Iterator[tuple[str, object, bool]]:
    """Values of each parameter of an operation at its bounds, and whether they are within them."""
    for parameter in operation["parameters"]:
        schema, name = parameter["schema"], parameter["name"]
        if "minimum" in schema:
            for value in (schema["minimum"], schema["maximum"]):
                yield name, value, True
            for value in (schema["minimum"] - 1, schema["maximum"] + 1, "", "x", "1.5", "1e3"):
                yield name, value, False
        elif "enum" in schema:
            for value in schema["enum"]:
                yield name, value, True
            yield name, "2y", False
        elif "pattern" in schema and parameter["in"] == "query":  # Binance's
            yield from ((name, parameter["example"], True), (name, "A B", False), (name, "'--", False))
        elif "pattern" in schema:
            longest = int(re.findall(r"\d+(?=}\$)", schema["pattern"])[0])
            yield from ((name, "a.-_Z9", True), (name, "A" * longest, True))
            yield from ((name, "A" * (longest + 1), False), (name, "ß", False), (name, "A B", False))
        elif schema.get("minLength"):
            yield name, "", False


@pytest.mark.parametrize("venue", VENUES.values(), ids=VENUES.keys())
async def test_the_bounds_of_parameters_are_those_that_are_checked(venue: Venue) -> None:
    web = Web(venue=venue, klines=Exchange(-50, 30))
    web.topic([*minutes(0, 29), forming(minute(30))])
    made = await document(web)
    tried = 0
    for path, _, operation in described(made):
        for name, value, is_good in bounds(operation):
            answer = await web.get(ask(path, operation, name, value))
            # A symbol that may be, and is not, is unknown as well as one that cannot be: its message tells them apart.
            refused = answer.status == 400 or (answer.status == 404 and b"is called" in answer.body)
            refused = refused and not answer.body.startswith(b'{"code":-1121,')
            assert refused is not is_good, f"{path}: {name}={value!r} was answered with {answer.status} {answer.body!r}"
            assert str(answer.status) in operation["responses"], f"{path}: {answer.status} is not in the document"
            tried += 1
    assert tried > 230


async def test_a_token_is_asked_for_where_the_document_says_so() -> None:
    assert "securitySchemes" not in (await document(Web()))["components"]
    web = Web(access=AccessSettings(tokens=(Token("secret"),), origins=("https://chart.example",)))
    answer = await web.asked("/openapi.json", ("origin", "https://chart.example"))
    made = answer.json
    assert made["security"] == [{"bearer": []}, {"token": []}]
    assert made["components"]["securitySchemes"].keys() == {"bearer", "token"}
    for path, _, operation in described(made):
        filled = path.format(symbol="NOPE", interval="1m")
        status = (await web.asked(filled, ("origin", "https://chart.example"))).status
        assert (status == 401) is ("security" not in operation), path
        assert ("security" in operation) is (path in OPEN)
        assert {"401", "403"} <= operation["responses"].keys()


async def test_each_error_of_the_table_has_its_form_in_the_document() -> None:
    made = await document(Web())
    assert made["components"]["schemas"]["ErrorDetails"]["properties"]["code"]["enum"] == sorted(STATUSES)
    candles = made["paths"]["/candles/{symbol}/{interval}"]["get"]["responses"]
    assert candles.keys() == {"200", "304", "400", "404", "429", "500", "503"}
    assert "Retry-After" in candles["503"]["headers"]
    assert candles["404"]["description"] == "Not Found: `unknown_symbol`"
    assert candles["200"]["headers"]["Candlesync-Position"]["required"] is False
    history = made["paths"]["/udf/history"]["get"]["responses"]
    forms = history["503"]["content"]["application/json"]["schema"]["anyOf"]
    assert {form["$ref"].rpartition("/")[2] for form in forms} == {"UdfError", "Error"}
    interval = made["components"]["schemas"]["Interval"]
    assert set(interval["enum"]) == {str(one) for one in INTERVALS}


def test_two_types_of_one_name_are_noticed() -> None:
    schemas = _Schemas()
    schemas.refer(Error)
    schemas.refer(Error)
    with pytest.raises(ValueError, match="called Error"):
        schemas.refer(msgspec.defstruct("Error", [("other", int)]))


def test_an_operation_without_replies_cannot_be_said() -> None:
    with pytest.raises(TypeError):
        Operation("Candles", "Nothing")  # type: ignore[call-arg] # what is tested
    assert Reply(204, "Nothing").bodies == ()


async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """All of its checks, over a real port: what the document allows is served as it says, and the rest is refused."""
    web = Web(klines=Exchange(-2_500, 30))
    web.topic([*minutes(0, 29), forming(minute(30))])
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "schemathesis.toml")),
        *("run", "--max-examples", "10", "--checks", "all", "--no-color"),
    ]
    async with on_a_port(web) as port:
        with trio.fail_after(120):
            result = await trio.run_process(
                [*command, f"http://127.0.0.1:{port.number}/openapi.json"],
                capture_stdout=True,
                stderr=STDOUT,
                check=False,
                cwd=tmp_path,
            )
    said = result.stdout.decode()
    assert result.returncode == 0, said
    paths = len((await document(web))["paths"])
    assert f"Selected: {paths}/{paths}" in said
    assert f"Tested: {paths}" in said
