"""A candle of a series as it is held: with its revision, in few bytes.

A node holds hundreds of thousands of candles, of which few but the newest are read again as candles: what clients get
is ready. The others are packed. What a candle says stands nowhere twice:

    held           text              what is where
    Candle         none, or made     a candle that is still looked at: the newest
    whole, packed  none              one that was never sent
    rest, packed   made              one that was sent: its prices, volume and flags stand in the text

A thousand take 186 KiB packed, and 333 with their texts (``tests/core/test_entry.py``); each text is made once.
"""

from __future__ import annotations

import re

import msgspec

from candlesync.core.candle import Candle

_MEANT = b"0123456789. zy-~"
"""Half a byte each: decimals, what parts them, two words for many noughts, and an end for an odd number of them."""
_HEX = b"0123456789abcdef"
_TO_HEX = bytes.maketrans(_MEANT, _HEX)
_DECIMALS = re.compile(r"[0-9. -]+", re.ASCII).fullmatch
_FROM_HEX = bytes.maketrans(_HEX, _MEANT)


class Entry(msgspec.Struct, eq=False, gc=False):
    """A candle of a series with the revision that last changed it; never changed, only replaced."""

    _held: Candle | bytes
    """The candle, with which an entry is made, or later what it says in packed form, but for what is in the text."""
    revision: int
    open_time: int = 0
    """The candle's."""
    text: bytes | None = None
    """The candle's JSON from the value of ``time`` on, once somebody has asked for it (`write`): what comes before is
    the same for a whole series, see ``core.wire``."""

    def __post_init__(self) -> None:
        self.open_time = self.candle.open_time

    @property
    def candle(self) -> Candle:
        """The candle."""
        held = self._held
        if isinstance(held, Candle):
            return held
        return _candle(self.open_time, _unpacked(held), self.text)

    def write(self) -> bytes:
        """Make the text; called where there is none yet."""
        candle = self.candle
        closed = "true" if candle.closed else "false"
        filled = ',"filled":true' if candle.filled else ""
        text = (
            f'{candle.open_time // 1000},"open":{candle.open},"high":{candle.high},"low":{candle.low}'
            f',"close":{candle.close},"volume":{candle.volume},"closed":{closed}{filled},"rev":{self.revision}}}'
        ).encode("ascii")
        if isinstance(self._held, bytes):
            self._held = _packed(_rest(candle)) or candle
        self.text = text
        return text

    def pack(self) -> None:
        """Take less memory; for a candle that is seldom asked for."""
        held = self._held
        if isinstance(held, Candle):
            # What cannot be packed, and no exchange says, stays as it is.
            self._held = _packed(_whole(held) if self.text is None else _rest(held)) or held


def _rest(candle: Candle) -> str:
    """What the text of a candle does not say."""
    return (
        f"{candle.quote_volume} {candle.taker_base_volume} {candle.taker_quote_volume} {candle.trades} "
        # An interval's length ends in noughts, and the unused field is one.
        f"{candle.close_time - candle.open_time + 1}{'' if candle.unused == '0' else ' ' + candle.unused}"
    )


def _whole(candle: Candle) -> str:
    return (
        f"{candle.open} {candle.high} {candle.low} {candle.close} {candle.volume} {candle.closed:d}{candle.filled:d} "
        f"{_rest(candle)}"
    )


def _candle(open_time: int, packed: str, text: bytes | None) -> Candle:
    """The candle that was `_whole`, or of which `text` says what is not `_rest`."""
    if text is None:
        open_, high, low, close, volume, flags, *rest = packed.split(" ")
        closed, filled = flags[0] == "1", flags[1] == "1"
    else:
        _, *values = (part.rpartition(":")[2] for part in text.decode("ascii").split(","))
        open_, high, low, close, volume, closed_text, *flags_and_revision = values
        closed, filled = closed_text == "true", len(flags_and_revision) > 1
        rest = packed.split(" ")
    quote, taker_base, taker_quote, trades, length, *unused = rest
    return Candle(
        open_time=open_time,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        close_time=open_time + int(length) - 1,
        quote_volume=quote,
        trades=int(trades),
        taker_base_volume=taker_base,
        taker_quote_volume=taker_quote,
        unused=unused[0] if unused else "0",
        closed=closed,
        filled=filled,
    )


def _packed(text: str) -> bytes | None:
    """Decimals and spaces in half a byte each; `None` if there is anything else."""
    if not _DECIMALS(text):
        return None
    # Binance writes eight decimals, whatever an exchange's tick: most of its prices end in zeros.
    short = text.replace("000000", "z").replace("0000", "y")
    digits = (short if len(short) % 2 == 0 else short + "~").encode("ascii").translate(_TO_HEX)
    return bytes.fromhex(digits.decode("ascii"))


def _unpacked(packed: bytes) -> str:
    text = packed.hex().encode("ascii").translate(_FROM_HEX).decode("ascii")
    return text.rstrip("~").replace("y", "0000").replace("z", "000000")
