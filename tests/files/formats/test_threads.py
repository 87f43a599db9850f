"""Claims of decoding in several threads: what crashes when two do it at once is done by one."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from planc.files.formats import decode_plan, encode_plan, records
from planc.files.formats.records import PlanRecord
from tests.support.strategies import example_plan


def test_decoders_are_made_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that make decoders of the same types for the first time end in a crash."""
    making, most, real = [0], [0], records._made

    def slow(kind: Any) -> Any:
        making[0] += 1
        most[0] = max(most[0], making[0])
        time.sleep(0.01)
        making[0] -= 1
        return real(kind)

    monkeypatch.setattr(records, "_made", slow)
    threads = [threading.Thread(target=records._decoder, args=(PlanRecord,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_threads_read_and_write_plans() -> None:
    plan, found = example_plan(), list[Any]()
    threads = [
        threading.Thread(target=lambda: found.append(decode_plan(encode_plan(plan))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [plan] * 4
