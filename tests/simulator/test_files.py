from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from candlesync.simulator.bars import Row
from candlesync.simulator.files import UnreadableFile, read_rows

ROWS = [
    Row(1735689600000, "1.10", "1.30", "1.00", "1.20", "5.5", 1735689659999, "6.1", 7, "2.5", "3.0", "0"),
    Row(1735689660000, "1.20", "1.20", "1.20", "1.20", "0.0", 1735689719999, "0.0", 0, "0.0", "0.0", "0"),
]
HEADER = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote,ignore"


def csv_text(*, micro: bool = False) -> str:
    lines = []
    for row in ROWS:
        times = (f"{row.open_time}000", f"{row.close_time}999") if micro else (str(row.open_time), str(row.close_time))
        lines.append(",".join([times[0], *map(str, row[1:6]), times[1], *map(str, row[7:])]))
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.parametrize(
    "content",
    [
        csv_text(),
        csv_text(micro=True),
        f"{HEADER}\n{csv_text()}",
        json.dumps(ROWS),
        json.dumps(ROWS[::-1], indent=1),
    ],
    ids=["csv", "microseconds", "header", "json", "json, newest first"],
)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zip"])
def test_all_kinds_of_files(content: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"klines{suffix}"
    match suffix:
        case ".gz":
            path.write_bytes(gzip.compress(content.encode()))
        case ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("klines.csv", content)
        case _:
            path.write_text(content, newline="")
    assert read_rows(path) == ROWS


def test_dates_are_utc(tmp_path: Path) -> None:
    path = tmp_path / "klines.csv"
    path.write_text("2018-02-09 09:28:14.789,1,1,1,1,0,1518171294788,0,0,0,0,0\n")
    assert read_rows(path)[0].open_time == 1518168494789


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no klines"),
        (HEADER, "no klines"),
        ("1,2,3\n", "line 1: 3 fields instead of 12"),
        (csv_text().replace("1.30", "high"), "line 1: not a decimal number: 'high'"),
        (csv_text().replace("1735689719999", "1735689000000"), "line 2: closes before it opens"),
        ("[[1]]", "Expected `array` of length 12"),
        ("[[", "truncated"),
        (json.dumps([[*ROWS[0][:1], 1.1, *ROWS[0][2:]]]), "Expected `str`"),
    ],
)
def test_what_cannot_be_read_is_said(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "klines"
    path.write_text(content)
    with pytest.raises(UnreadableFile, match=message) as error:
        read_rows(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        read_rows(Path("nowhere.csv"))
