"""The options of the command line, by option and by environment variable, and the settings that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

from candlesync.binance.rest_client import RestSettings
from candlesync.binance.venue import SPOT, SPOT_US, USDM, Venue
from candlesync.cli import main
from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.options import (
    settings_from,
    settings_from_environment,
    store_settings_from,
    with_bind,
    with_settings,
    with_store,
)
from candlesync.store.address import Address
from candlesync.store.redis import RedisSettings
from candlesync.web.access import Token


class Command:
    """A command with all options, which keeps what it was given."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.bind: tuple[str, ...] = ()

    def invoke(self, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Result:
        @with_settings
        @with_bind
        def read(bind: tuple[str, ...], **values: Any) -> None:
            self.settings, self.bind = settings_from(values), bind

        return CliRunner().invoke(click.command("read")(read), arguments, env=environment)


def read(arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Settings:
    command = Command()
    result = command.invoke(arguments, environment)
    assert result.exit_code == 0, result.output
    assert command.settings is not None
    return command.settings


def bind(arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    command = Command()
    assert command.invoke(arguments, environment).exit_code == 0
    return command.bind


def test_without_anything_the_defaults_are_those_of_the_settings() -> None:
    assert read() == Settings()
    assert bind() == ("127.0.0.1:8000",)


def venue_of(settings: Settings) -> Venue:
    return settings.venue


OPTIONS: list[tuple[str, str, Callable[[Settings], object], object]] = [
    ("venue", "usdm", venue_of, USDM),
    ("interval", "5m", attrgetter("intervals"), (Interval.M5,)),
    ("rest-url", "http://127.0.0.1:9000/binance", attrgetter("rest.base_url"), "http://127.0.0.1:9000/binance"),
    ("stream-url", "ws://[::1]:9000", attrgetter("stream.stream_url"), "ws://[::1]:9000"),
    ("history", "1500", attrgetter("rules.history"), 1500),
    ("symbols-per-connection", "16", attrgetter("stream.symbols_per_connection"), 16),
    ("max-symbols", "7", attrgetter("supervisor.max_symbols"), 7),
    ("idle", "90.5", attrgetter("supervisor.idle"), 90.5),
    ("outage-pause", "0", attrgetter("rules.outage_pause"), 0.0),
    ("silence", "3", attrgetter("inspection.silence"), 3.0),
    ("audit-share", "0", attrgetter("audit.share"), 0.0),
    ("grace", "20", attrgetter("grace"), 20.0),
    ("node-name", "blue", attrgetter("node_name"), "blue"),
    ("max-connections", "50", attrgetter("max_connections"), 50),
    ("max-connections-per-address", "0", attrgetter("access.connections"), 0),
    ("request-rate", "2.5", attrgetter("access.request_rate"), 2.5),
    ("max-subscriptions", "7", attrgetter("max_subscriptions"), 7),
    ("message-rate", "0", attrgetter("message_rate"), 0.0),
    ("allow-origin", "https://chart.example", attrgetter("access.origins"), ("https://chart.example",)),
    ("token", "c2VjcmV0", attrgetter("access.tokens"), (Token("c2VjcmV0"),)),
    ("trusted-proxy", "10.0.0.0/8", attrgetter("access.trusted_proxies"), ("10.0.0.0/8",)),
]


@pytest.mark.parametrize(("name", "text", "get", "value"), OPTIONS, ids=[option[0] for option in OPTIONS])
def test_each_option_and_its_environment_variable(
    name: str, text: str, get: Callable[[Settings], object], value: object
) -> None:
    variable = f"CANDLESYNC_{name.replace('-', '_').upper()}"
    assert get(Settings()) != value
    assert get(read([f"--{name}", text])) == value
    assert get(read(environment={variable: text})) == value


@pytest.mark.parametrize("venue", [SPOT, SPOT_US, USDM], ids=lambda venue: venue.name)
def test_a_venue_brings_its_hosts_and_limits(venue: Venue) -> None:
    given = read(["--venue", venue.name])
    assert (given.rest.venue, given.stream.venue) == (venue, venue)
    assert given.rest.urls == venue.rest_urls
    assert given.stream.urls == venue.stream_urls
    assert given.weight.limit == venue.weight_limit
    # Beginning a series costs a page, and confirming it another one.
    cost = 2 * venue.klines_weight(1000)
    assert given.supervisor.start_burst * cost == pytest.approx(venue.weight_limit * 2 / 15)
    assert given.supervisor.start_rate * 60 * cost == pytest.approx(venue.weight_limit / 5)


def test_a_host_that_is_named_comes_before_the_venue_s() -> None:
    given = read(["--venue", "usdm", "--rest-url", "http://127.0.0.1:1", "--stream-url", "ws://127.0.0.1:1/market"])
    assert given.rest.urls == ("http://127.0.0.1:1",)
    assert given.stream.urls == ("ws://127.0.0.1:1/market",)
    assert given.venue is USDM


STORE = ["--store", "redis://127.0.0.1:6379/0"]


@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [
        ([], "candlesync"),
        (["--venue", "spot"], "candlesync"),
        (["--venue", "spot-us"], "candlesync-spot-us"),
        (["--venue", "usdm"], "candlesync-usdm"),
        (["--venue", "usdm", "--store-prefix", "candlesync"], "candlesync"),
        (["--store-prefix", "blue"], "blue"),
    ],
)
def test_processes_of_two_venues_share_a_server_without_mixing(arguments: list[str], prefix: str) -> None:
    store = read([*STORE, *arguments]).store
    assert store is not None
    assert store.prefix == prefix
    # Who asks for the owners looks where the nodes are.
    owners: list[str] = []

    @with_store
    def ask(**values: Any) -> None:
        settings = store_settings_from(values)
        assert settings is not None
        owners.append(settings.prefix)

    assert CliRunner().invoke(click.command("owners")(ask), [*STORE, *arguments]).exit_code == 0
    assert owners == [prefix]


def test_the_command_line_comes_first() -> None:
    assert read(["--idle", "90"], {"CANDLESYNC_IDLE": "30"}).supervisor.idle == 90


def test_the_store() -> None:
    assert read(["--store", "memory"]) == read(environment={"CANDLESYNC_STORE": "memory"}) == Settings()


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/3",
        "rediss://user:word@redis.test",
        "unix:///run/redis.sock",
        "redis+cluster://one.test:7000,two.test:7000",
    ],
)
def test_a_shared_store(url: str) -> None:
    given = read(["--store", url, "--store-prefix", "blue", "--lease", "5"])
    assert given.store == RedisSettings(Address(url), prefix="blue", lease=5.0)
    variables = {"CANDLESYNC_STORE": url, "CANDLESYNC_STORE_PREFIX": "blue", "CANDLESYNC_LEASE": "5"}
    assert read(environment=variables) == given
    assert read(["--store", url]).store == RedisSettings(Address(url))


def test_every_option_of_serve_has_an_environment_variable_and_a_help_text() -> None:
    tested = {f"--{option[0]}" for option in OPTIONS} | {"--store", "--store-prefix", "--lease"}
    tested |= {"--bind", "--log-level", "--log-format"}
    parameters = main.commands["serve"].params
    options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
    assert {option.opts[0] for option in options} == tested
    for option in options:
        assert option.envvar == f"CANDLESYNC_{option.opts[0].removeprefix('--').replace('-', '_').upper()}"
        assert option.help
    (symbols,) = [parameter for parameter in parameters if isinstance(parameter, click.Argument)]
    assert symbols.envvar == "CANDLESYNC_SYMBOLS"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["BTCUSDT", "ETHUSDT"], {}),
        (["btcusdt", "EthUsdt"], {}),
        (["BTCUSDT,ETHUSDT"], {}),
        (["BTCUSDT", "ETHUSDT", "btcusdt"], {}),
        ([], {"CANDLESYNC_SYMBOLS": "BTCUSDT,ETHUSDT"}),
        ([], {"CANDLESYNC_SYMBOLS": "BTCUSDT ETHUSDT"}),
        ([], {"CANDLESYNC_SYMBOLS": " btcusdt, ethusdt ,"}),
        (["BTCUSDT", "ETHUSDT"], {"CANDLESYNC_SYMBOLS": "LTCUSDT"}),
    ],
)
def test_symbols_in_any_case_by_word_or_comma_each_once(arguments: list[str], environment: dict[str, str]) -> None:
    assert read(arguments, environment).symbols == ("BTCUSDT", "ETHUSDT")


def test_several_intervals_by_option_or_comma() -> None:
    wanted = (Interval.M1, Interval.MO1, Interval.H1)
    assert read(["--interval", "1m", "--interval", "1M", "--interval", "1h"]).intervals == wanted
    assert read(["--interval", "1m,1M,1h"]).intervals == wanted
    assert read(environment={"CANDLESYNC_INTERVAL": "1m,1M 1h"}).intervals == wanted


def test_what_is_pinned_is_each_symbol_at_each_interval() -> None:
    settings = read(["BTCUSDT", "ETHUSDT", "--interval", "1m,5m"])
    assert set(settings.pinned) == {
        Series(symbol, interval) for symbol in ("BTCUSDT", "ETHUSDT") for interval in (Interval.M1, Interval.M5)
    }


def test_where_to_listen() -> None:
    assert bind(["--bind", "0.0.0.0:80", "--bind", "[::]:8000"]) == ("0.0.0.0:80", "[::]:8000")
    assert bind(environment={"CANDLESYNC_BIND": "127.0.0.1:1,localhost:0"}) == ("127.0.0.1:1", "localhost:0")


def test_an_address_is_needed() -> None:
    result = Command().invoke(["--bind", ""], None)
    assert result.exit_code == 2
    assert "no address is given" in result.output


BAD = {
    "SYMBOL": (["BTC USDT!"], "symbols look like BTCUSDT"),
    "SYMBOL in Unicode": (["b\u0131tcoin"], "symbols look like BTCUSDT"),
    "SYMBOL too long": (["A" * 51], "symbols look like BTCUSDT"),
    "--interval": (["--interval", "2m"], "1s, 1m, 3m"),
    "--interval in another case": (["--interval", "1H"], "1s, 1m, 3m"),
    "--venue": (["--venue", "coinm"], "'spot', 'spot-us', 'usdm'"),
    "--store": (["--store", "mongodb://localhost"], "redis://HOST:PORT"),
    "--store of a cluster": (["--store", "redis+cluster://localhost/1"], "no database but 0"),
    "--store-prefix": (["--store-prefix", "{a}"], "braces"),
    "--lease": (["--lease", "0.1"], "0.5"),
    "--rest-url": (["--rest-url", "nonsense"], "http or https"),
    "--rest-url of another kind": (["--rest-url", "ftp://binance"], "http or https"),
    "--rest-url without a host": (["--rest-url", "https://"], "a host"),
    "--rest-url with half an address": (["--rest-url", "http://["], "a host"),
    "--rest-url with a query": (["--rest-url", "https://binance?a=b"], "http or https"),
    "--rest-url with a bad port": (["--rest-url", "http://binance:99999"], "port"),
    "--stream-url": (["--stream-url", "https://binance"], "ws or wss"),
    "--stream-url without a host": (["--stream-url", "wss://"], "a host"),
    "--stream-url with a bad port": (["--stream-url", "wss://binance:0"], "port"),
    "--history": (["--history", "999"], "1000"),
    "--history as a word": (["--history", "many"], "many"),
    "--symbols-per-connection": (["--symbols-per-connection", "65"], "64"),
    "--max-symbols": (["--max-symbols", "0"], "1"),
    "--idle": (["--idle", "0"], "1"),
    "--idle that is no number": (["--idle", "nan"], "not a number of seconds"),
    "--outage-pause": (["--outage-pause", "-1"], "0"),
    "--silence": (["--silence", "inf"], "not a number of seconds"),
    "--audit-share": (["--audit-share", "0.6"], "0.5"),
    "--audit-share that is no number": (["--audit-share", "nan"], "not a number"),
    "--grace": (["--grace", "0.5"], "1"),
    "--grace without end": (["--grace", "inf"], "not a number of seconds"),
    "--bind": (["--bind", "8000"], "HOST:PORT"),
    "--bind without a host": (["--bind", ":8000"], "HOST:PORT"),
    "--bind with a bad port": (["--bind", "127.0.0.1:65536"], "HOST:PORT"),
    "--bind with another port": (["--bind", "127.0.0.1:٨"], "HOST:PORT"),
    "--max-connections": (["--max-connections", "0"], "1"),
    "--max-connections-per-address": (["--max-connections-per-address", "-1"], "0"),
    "--request-rate": (["--request-rate", "-1"], "0"),
    "--request-rate that is no number": (["--request-rate", "nan"], "not a number"),
    "--max-subscriptions": (["--max-subscriptions", "0"], "1"),
    "--message-rate": (["--message-rate", "inf"], "not a number"),
    "--allow-origin": (["--allow-origin", "chart.example"], "https://chart.example"),
    "--allow-origin with a path": (["--allow-origin", "https://chart.example/"], "with nothing after them"),
    "--allow-origin with a bad port": (["--allow-origin", "https://chart.example:port"], "origins look like"),
    "--token that is not ASCII": (["--token", "geheimnisvoll-ä"], "ASCII letters"),
    "--token with a sign": (["--token", "geheim;nisvoll"], "ASCII letters"),
    "--token that is empty": (["--token", ","], "a token is empty"),
    "--trusted-proxy": (["--trusted-proxy", "nginx"], "10.0.0.0/8"),
    "--trusted-proxy that is no network": (["--trusted-proxy", "10.0.0.1/8"], "host bits"),
    "--unknown": (["--unknown"], "No such option"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_value_gets_a_clear_message_and_exit_status_2(what: str) -> None:
    arguments, says = BAD[what]
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == 2
    name = what.split(maxsplit=1)[0]
    message = result.output.rpartition("Error: ")[2]
    assert name in message
    assert says in message
    assert "Traceback" not in result.output


@pytest.mark.parametrize("what", [name for name, (arguments, _) in BAD.items() if len(arguments) == 2])
def test_a_bad_value_in_the_environment_gets_the_same_and_the_variable_is_named(what: str) -> None:
    (option, value), says = BAD[what]
    variable = f"CANDLESYNC_{option.removeprefix('--').replace('-', '_').upper()}"
    result = CliRunner().invoke(main, ["serve"], env={variable: value})
    assert result.exit_code == 2
    assert variable in result.output
    assert says in result.output


def test_an_interval_that_the_venue_has_not_is_refused_before_anything_is_started() -> None:
    for venue in ("usdm", "spot-us"):
        result = CliRunner().invoke(main, ["serve", "--venue", venue, "--interval", "1s"])
        assert result.exit_code == 2
        assert f"{venue} has no interval 1s; there are 1m, 3m" in result.output
    assert read(["--interval", "1s"]).intervals == (Interval.S1,)


def test_the_demo_says_which_venues_are_simulated() -> None:
    result = CliRunner().invoke(main, ["demo", "--venue", "spot-us"])
    assert result.exit_code == 2
    assert "spot-us is not simulated; there are spot, usdm" in result.output


def test_one_process_follows_one_venue() -> None:
    with pytest.raises(ValueError, match="one venue a process"):
        Settings(rest=RestSettings(venue=USDM))


def test_several_origins_tokens_and_proxies() -> None:
    given = read(
        [
            *("--allow-origin", "HTTPS://Chart.example:443", "--allow-origin", "http://localhost:3000"),
            *("--token", "one", "--token", "two"),
            *("--trusted-proxy", "unix", "--trusted-proxy", "2001:db8::/32"),
        ]
    )
    assert given.access.origins == ("https://chart.example", "http://localhost:3000")
    assert given.access.tokens == (Token("one"), Token("two"))
    assert given.access.trusted_proxies == ("unix", "2001:db8::/32")
    variables = {
        "CANDLESYNC_ALLOW_ORIGIN": "https://chart.example,http://localhost:3000",
        "CANDLESYNC_TOKEN": "one,two",
        "CANDLESYNC_TRUSTED_PROXY": "unix 2001:db8::/32",
    }
    assert read(environment=variables) == given
    assert read(["--allow-origin", "*"]) == Settings()


SECRETS: list[tuple[list[str], dict[str, str]]] = [
    (["--token", "open sesame"], {}),
    (["--token", "sesame;"], {}),
    (["--token", "sesameä"], {}),
    (["--token", "good-sesame", "--token", ""], {}),
    ([], {"CANDLESYNC_TOKEN": "sesame;"}),
    ([], {"CANDLESYNC_TOKEN": ""}),
    ([], {"CANDLESYNC_TOKEN": "  "}),
    ([], {"CANDLESYNC_TOKEN": ","}),
]


@pytest.mark.parametrize(("arguments", "environment"), SECRETS)
def test_a_token_that_cannot_be_one_is_an_error_that_does_not_say_it(
    arguments: list[str], environment: dict[str, str]
) -> None:
    result = CliRunner().invoke(main, ["serve", *arguments], env=environment)
    assert result.exit_code == 2
    assert "a token is" in result.output
    assert "sesame" not in result.output


def test_a_token_is_never_shown() -> None:
    settings = read(["--token", "sesame"])
    token = settings.access.tokens[0]
    assert token.text == "sesame"
    for text in (repr(settings), str(settings), f"{token}", repr(token), str(token.__rich_repr__())):
        assert "sesame" not in text
    with pytest.raises(ValueError, match="a token is made of") as caught:
        Token("open sesame")
    assert "sesame" not in str(caught.value)


def test_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDLESYNC_SYMBOLS", "btcusdt,ethusdt")
    monkeypatch.setenv("CANDLESYNC_INTERVAL", "1m,1h")
    monkeypatch.setenv("CANDLESYNC_REST_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CANDLESYNC_LOG_LEVEL", "warning")
    monkeypatch.setenv("CANDLESYNC_LOG_FORMAT", "json")
    level, form, settings = settings_from_environment()
    assert form == "json"
    assert level == "warning"
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.intervals == (Interval.M1, Interval.H1)
    assert settings.rest.base_url == "http://127.0.0.1:9"
    monkeypatch.setenv("CANDLESYNC_HISTORY", "many")
    with pytest.raises(click.UsageError, match="many"):
        settings_from_environment()


PARAMETERS = [
    option
    for option in click.command("any")(with_settings(with_bind(lambda **_: None))).params
    if isinstance(option, click.Option)
]
PASSWORD = "Op3nSesame"
WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30),
    st.sampled_from(
        [
            *("0", "-1", "1", "1e3", "1e309", "nan", "-inf", "9" * 5000, "1_000", "\u0661", "0x10", " ", "", ",", "\n"),
            *(
                "BTCUSDT",
                "btcusdt,ETHUSDT",
                "BTCU\u017fDT",
                "a" * 51,
                "../x",
                "{}",
                "1m",
                "1M,5m",
                "7m",
                "memory",
                "null",
            ),
            *("127.0.0.1:8000", ":8000", "[::]:0", "[::1", "a:" + "9" * 5000, "unix:/x", "127.0.0.1:65536", "a:\u0661"),
            *(
                "http://a",
                "https://[::1]:80/x",
                "http://[",
                "http://a:b",
                "http://a:99999",
                "ws://a?b",
                "ws://a#b",
                "//",
            ),
            *(f"redis://:{PASSWORD}@a/x", f"redis://u:{PASSWORD}@[a", f"rediss://:{PASSWORD}@a:99999999/0", "redis://"),
            *(
                f"{PASSWORD} {PASSWORD}é",
                f"{PASSWORD}=x",
                "https://a.example",
                "https://a.example/x",
                "10.0.0.0/8",
                "::/129",
            ),
        ]
    ),
)


@settings(max_examples=400)
@example(next(each for each in PARAMETERS if each.name == "bind"), "a:" + "9" * 5000, False)
@given(st.sampled_from(PARAMETERS), WORDS, st.booleans())
def test_whatever_is_given_is_taken_or_refused_in_words(option: click.Option, word: str, in_environment: bool) -> None:
    arguments, environment = [f"{option.opts[0]}={word}"], {}
    if in_environment:
        assert isinstance(option.envvar, str)
        arguments, environment = [], {option.envvar: word}
    result = Command().invoke(arguments, environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in {0, 2}
    if option.opts[0] in {"--token", "--store"}:
        assert PASSWORD not in result.output
    assert len(result.output) < 20_000
