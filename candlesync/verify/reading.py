"""The server's JSON, read without a float: what stands there is what is compared. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from candlesync.core.candle import Series
from candlesync.verify.findings import VALUES, CannotCheck, Shown

_DECIMAL = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


class _Number(str):
    """A JSON number, as it is written."""

    __slots__ = ()


def read_json(text: str) -> Any:
    """A JSON text; raises `CannotCheck` for what is none."""
    try:
        return json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_Number)
    except (ValueError, RecursionError) as error:
        raise CannotCheck(f"it answers with something that is not JSON: {text[:80]!r}") from error


def read_candle(value: Any, series: Series) -> Shown:
    """A candle object of the contract; raises `CannotCheck` when it is none of this series."""
    match value:
        case {
            "symbol": series.symbol,
            "interval": str(interval),
            "time": _Number() as time,
            "closed": bool(closed),
            "rev": _Number() as rev,
        } if interval == str(series.interval) and time.isdigit() and rev.isdigit():
            filled, position = value.get("filled", False), value.get("position")
            values = [value.get(name) for name in VALUES]
            good = all(isinstance(number, _Number) and _DECIMAL.fullmatch(number) for number in values)
            if good and isinstance(filled, bool) and isinstance(position, str | None):
                texts = tuple(str(number) for number in values)
                return Shown(int(time) * 1000, texts, closed, filled, int(rev), position)
    raise CannotCheck(f"it shows something that is no candle of {series}: {str(value)[:120]}")
