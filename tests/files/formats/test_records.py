"""Records by themselves: what their readers say, and what they have to know."""

from __future__ import annotations

import msgspec
import pytest

from planc.errors import FileError, LimitExceeded, MalformedFile, UnsupportedVersion
from planc.files.disk.limits import Limits
from planc.files.formats import records
from planc.files.formats.records import PlanRecord, check_features, decode_inputs, decode_record


class Small(records.RecordMap):
    first: int
    second: str


def test_another_form_of_a_record_is_shown_beside_the_canonical_one() -> None:
    with pytest.raises(MalformedFile) as caught:
        decode_record(b"\x82\xa5first\xcc\x01\xa6second\xa1a", Small)
    assert str(caught.value) == (
        "the body: byte 7 is not in canonical form (cc 01 a6 73 where 01 a6 73 65 is); write the "
        "file with planc"
    )


def test_inputs_are_measured_before_they_are_decoded() -> None:
    raw = msgspec.Raw(b"\x92\xa5value\x01")
    assert decode_inputs(raw, Limits(inputs=8)) == ("value", 1)
    with pytest.raises(LimitExceeded) as caught:
        decode_inputs(raw, Limits(inputs=7))
    assert str(caught.value).startswith("inputs: 8 exceeds the limit of 7 inputs; ")
    with pytest.raises(MalformedFile, match=r"^inputs: .*; write the file again$"):
        decode_inputs(msgspec.Raw(b"\x80"), Limits())


def test_features_that_are_known_may_be_required() -> None:
    known = frozenset({"sparse", "half"})
    check_features(("half", "sparse"), known)
    with pytest.raises(UnsupportedVersion) as caught:
        check_features(("half", "whole"), known)
    assert str(caught.value) == (
        "requires: the file needs ['whole'], this planc has ['half', 'sparse']; read the file with "
        "the planc that wrote it"
    )


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa8requires\x91\xa1\xff", b"\x91" * 10_000])
def test_a_body_that_no_reader_can_read_is_malformed_and_not_from_the_future(body: bytes) -> None:
    with pytest.raises(FileError) as caught:
        decode_record(body, PlanRecord)
    assert type(caught.value) is MalformedFile


class Unsorted(records.RecordMap):
    second: int
    first: int


def test_keys_are_sorted_however_a_record_declares_them() -> None:
    read = decode_record(b"\x82\xa5first\x01\xa6second\x02", Unsorted)
    assert (read.first, read.second) == (1, 2)
    with pytest.raises(MalformedFile, match="byte 1 is not in canonical form"):
        decode_record(b"\x82\xa6second\x02\xa5first\x01", Unsorted)
