"""In which form each door tells what is refused before its routes have seen it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from candlesync.doors.binance.errors import body_of as binance_body_of
from candlesync.doors.udf.routes import body_of as udf_body_of
from candlesync.web.refusal import Refusal

FORMS: Final[Mapping[str, Callable[[Refusal], bytes]]] = {"/binance": binance_body_of, "/udf": udf_body_of}
"""By the first word of the path, for `candlesync.web.access.Access`."""
