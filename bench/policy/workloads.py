"""What the recorded processes do: things that processes do, from the standard library alone.

Each function makes what the process holds, and returns what is then done again and again.
"""

import json
import random
import sqlite3
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["WORKLOADS"]


def database() -> Callable[[], None]:
    """SQLite in memory: rows of a table of 60,000 updated, some more often than others"""
    draw = random.Random(1)
    rows = sqlite3.connect(":memory:")
    rows.execute("create table t (k integer primary key, n integer, v text)")
    rows.executemany(
        "insert into t values (?, 0, ?)", ((key, f"{key:08}" * 40) for key in range(60_000))
    )

    def work() -> None:
        for _ in range(12):
            key = int(60_000 * draw.random() ** 4)
            rows.execute("update t set n = n + 1 where k = ?", (key,))
        time.sleep(0.02)

    return work


def cache() -> Callable[[], None]:
    """a cache: entries of 2 KiB read and replaced, a few of 12,000 very often"""
    draw = random.Random(2)
    held = {key: bytes(2048) for key in range(12_000)}
    hits = dict.fromkeys(held, 0)

    def work() -> None:
        for _ in range(60):
            key = min(int(draw.paretovariate(0.6)), 11_999)
            hits[key] += 1
            if draw.random() < 0.3:
                held[key] = bytes(2000 + draw.randrange(48))
        time.sleep(0.02)

    return work


def service() -> Callable[[], None]:
    """a service: mostly waiting, twice a second some requests parsed, kept and answered"""
    draw = random.Random(3)
    ballast = [str(number) * 50 for number in range(120_000)]
    sessions: dict[int, Any] = {}

    def work() -> None:
        for _ in range(20):
            user = draw.randrange(400)
            body = json.dumps({"user": user, "items": [draw.random() for _ in range(60)]})
            sessions[user] = json.loads(body)
        assert ballast
        time.sleep(0.5)

    return work


def batch() -> Callable[[], None]:
    """a batch job: a chunk of records made, sorted, added up and dropped, without a pause"""
    draw = random.Random(4)
    ballast = [bytes(1000) for _ in range(20_000)]
    sums: list[float] = []

    def work() -> None:
        chunk = sorted((draw.random(), str(number)) for number in range(20_000))
        sums.append(sum(value for value, _ in chunk))
        assert ballast

    return work


def grid() -> Callable[[], None]:
    """a simulation: a field of 24 MiB smoothed row by row, over and over"""
    width, height = 2048, 1536
    field = [array("d", bytes(8 * width)) for _ in range(height)]
    at = 0

    def work() -> None:
        nonlocal at
        row = field[at % height]
        value = float(at)
        for column in range(0, width, 8):
            row[column] = value
        at += 1
        if at % 8 == 0:
            time.sleep(0.005)

    return work


WORKLOADS: Final[Mapping[str, Callable[[], Callable[[], None]]]] = {
    made.__name__: made for made in (database, cache, service, batch, grid)
}
