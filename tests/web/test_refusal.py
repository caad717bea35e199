"""One code, one status, one close code, one shape."""

from __future__ import annotations

import json
import math

import pytest

from candlesync.errors import (
    CandlesyncError,
    Fenced,
    LocationRefused,
    RateLimited,
    TooMany,
    UnknownInterval,
    UnknownSymbol,
    UnreadableAnswer,
    UpstreamUnavailable,
)
from candlesync.web.refusal import STATUSES, Refusal, refusal_of


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("unknown_symbol", 404),
        ("bad_interval", 400),
        ("bad_limit", 400),
        ("bad_parameter", 400),
        ("too_many", 429),
        ("unauthorized", 401),
        ("forbidden", 403),
        ("server_full", 503),
        ("upstream_unavailable", 503),
        ("not_found", 404),
        ("too_old", 410),
    ],
)
def test_the_contract_s_codes(code: str, status: int) -> None:
    refusal = Refusal(code, "why")
    assert refusal.status == status
    assert refusal.close_code == 4000 + status
    assert json.loads(refusal.body) == {"error": {"code": code, "message": "why"}}


def test_what_is_refused_before_the_upgrade() -> None:
    before = {code for code in STATUSES if Refusal(code, "").is_before_upgrade}
    limits, access, status_503 = {"too_many"}, {"unauthorized", "forbidden"}, {"upstream_unavailable", "going_down"}
    assert before == limits | access | status_503 | {"server_full"}


@pytest.mark.parametrize("code", STATUSES)
def test_a_close_code_is_one_that_applications_may_send_and_the_reason_fits(code: str) -> None:
    # RFC 6455: 4000 to 4999 are for private use, and a control frame holds 125 bytes, two of them the code.
    assert 4000 <= Refusal(code, "").close_code <= 4999
    assert len(code.encode()) <= 123


@pytest.mark.parametrize(
    ("error", "code", "retry_after"),
    [
        (Refusal("bad_limit", "no"), "bad_limit", None),
        (UnknownSymbol("no"), "unknown_symbol", None),
        (TooMany("no"), "too_many", 60),
        (TooMany("no", retry_after=2.5), "too_many", 3),
        (UpstreamUnavailable("no"), "upstream_unavailable", 5),
        (UpstreamUnavailable("no", retry_after=0.2), "upstream_unavailable", 1),
        (UpstreamUnavailable("no", retry_after=7.1), "upstream_unavailable", 8),
        (RateLimited("no", retry_after=3 * 86_400), "upstream_unavailable", 3600),
        (LocationRefused("no"), "upstream_unavailable", 5),
        (UnknownInterval("no"), "bad_interval", None),
        (UnreadableAnswer("no"), "upstream_unavailable", 5),
    ],
)
def test_how_an_error_of_ours_is_told(error: CandlesyncError, code: str, retry_after: int | None) -> None:
    refusal = refusal_of(error)
    assert (refusal.code, refusal.message, refusal.retry_after) == (code, "no", retry_after)


def test_what_is_ours_alone_is_not_told() -> None:
    refusal = refusal_of(Fenced("token 7 is not the current one"))
    assert refusal.code == "internal_error"
    assert "token" not in refusal.message


@pytest.mark.parametrize("seconds", [0.0, 0.001, 1.0, 1.2, 59.9])
def test_retry_after_is_whole_seconds_at_least_one_and_never_too_early(seconds: float) -> None:
    retry_after = Refusal("too_many", "", retry_after=seconds).retry_after
    assert retry_after == max(1, math.ceil(seconds))
