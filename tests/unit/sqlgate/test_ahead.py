from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.sqlgate import ahead
from hubscope.sqlgate.ahead import Foresight, Heard, Line, array, bound, heard, statement
from hubscope.sqlgate.values import parse_array

DESCRIPTION = b"t\0\0\0\x06\0\0" + b"T\0\0\0\x06\0\0"
READY = b"Z\0\0\0\x05T"

Row = tuple[str | None, ...]


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + (len(body) + 4).to_bytes(4, "big") + body


def row(values: Row) -> bytes:
    parts = [len(values).to_bytes(2, "big")]
    for value in values:
        text = b"" if value is None else value.encode()
        parts += [(-1 if value is None else len(text)).to_bytes(4, "big", signed=True), text]
    return message("D", b"".join(parts))


AROUND = st.sampled_from(
    [
        b"",
        message("N", b"SNOTICE\0Mlook\0\0"),
        message("S", b"TimeZone\0UTC\0"),
        message("A", b"\0\0\0\1canary\0\0"),
    ]
)
ROWS = st.lists(st.lists(st.none() | st.text(), max_size=4).map(tuple), max_size=4)
STATEMENTS = st.lists(st.tuples(st.sampled_from(["BEGIN", "SET", "SELECT 3"]), ROWS, AROUND), max_size=4)


def answer(statements: list[tuple[str, list[Row], bytes]]) -> bytes:
    """What a server says to messages that go ahead, one prepared by us each."""
    parts = []
    for tag, rows, around in statements:
        parts += [message("1", b""), around, message("2", b""), *map(row, rows), message("C", tag.encode() + b"\0")]
    return b"".join(parts)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda more: answer([("BEGIN", [], b"")]) + more))
def test_whatever_a_server_says_it_is_read_or_refused(data: bytes) -> None:
    try:
        found = heard(data)
    except asyncpg.InternalClientError:
        return
    assert data.startswith(found.answer)
    assert found.answer.endswith(found.description)


@given(STATEMENTS, AROUND, st.binary(max_size=20))
def test_what_came_ahead_is_told_up_to_the_description(
    statements: list[tuple[str, list[Row], bytes]], around: bytes, behind: bytes
) -> None:
    whole = answer(statements) + around + message("1", b"") + DESCRIPTION
    found = heard(whole + behind)
    assert found.completed == tuple(tag for tag, _, _ in statements)
    assert found.rows == tuple(row for _, rows, _ in statements for row in rows)
    between = any(each for _, _, each in statements) or around  # such an answer is not one to wait for again
    assert (found.description, found.answer) == (DESCRIPTION, b"" if between else whole)
    with pytest.raises(asyncpg.InternalClientError):
        heard(whole[:-1])


@given(STATEMENTS)
def test_an_error_ends_what_came_ahead_and_nothing_is_described(statements: list[tuple[str, list[Row], bytes]]) -> None:
    found = heard(answer(statements) + message("E", b"SERROR\0C22P02\0\0") + DESCRIPTION)
    assert len(found.completed) == len(statements)
    assert found.description == found.answer == b""


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        READY + DESCRIPTION,
        message("G", b"\0\0\0") + DESCRIPTION,
        b"C\0\0\0\3" + DESCRIPTION,
        b"C\xff\xff\xff\xff" + DESCRIPTION,
        message("D", b"\0\1\0\0\0\7abc") + DESCRIPTION,
        message("D", b"\0\1\xff\xff\xff\xfeabc") + DESCRIPTION,
        message("D", b"\0\1\0\0\0\1\xff") + DESCRIPTION,
        message("D", b"\0\0tail") + DESCRIPTION,
        DESCRIPTION[7:],
        message("1", b""),
    ],
)
def test_an_answer_that_is_none_is_refused(wrong: bytes) -> None:
    with pytest.raises(asyncpg.InternalClientError):
        heard(wrong)


@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_an_array_literal_holds_what_is_put_into_it(values: list[str | None]) -> None:
    assert parse_array(array(values), str) == values


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.lists(st.text("a{,\\é")))
def test_messages_say_how_long_they_are(sql: str, arguments: list[str]) -> None:
    for written, kinds in ((statement(sql), b"PBE"), (bound("name", arguments), b"BE")):
        at, found = 0, []
        while at < len(written):
            found.append(written[at])
            at += 1 + int.from_bytes(written[at + 1 : at + 5], "big")
        assert bytes(found) == kinds
        assert at == len(written)


def test_a_text_that_would_end_its_message_early_is_not_sent() -> None:
    with pytest.raises(asyncpg.InterfaceError):
        statement("SELECT 1\0")


class End:
    """Either end of a line: notes what reaches it."""

    def __init__(self) -> None:
        self.received = b""
        self.written: list[bytes] = []
        self.aborted = False

    def data_received(self, data: bytes) -> None:
        self.received += data

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


def waiting(parses: int) -> tuple[Line, End, End]:
    """A line on which so many Parses went ahead."""
    driver, transport = End(), End()
    line = Line(driver, transport)
    line._holding, line._listening = parses, True
    return line, driver, transport


@given(STATEMENTS, st.data())
def test_however_the_answer_is_cut_the_driver_gets_what_is_its_own(
    statements: list[tuple[str, list[Row], bytes]], data: st.DataObject
) -> None:
    own = message("2", b"") + row(("1",)) + message("C", b"SELECT 1\0") + READY
    whole = answer(statements) + message("1", b"") + DESCRIPTION + message("1", b"") + own
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    line, driver, _ = waiting(len(statements) + 3)
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if begin < end:
            line.data_received(whole[begin:end])
    around = b"".join(around for _, _, around in statements)
    assert driver.received == around + own
    assert heard(bytes(line._heard)) == heard(whole)


@given(STATEMENTS, st.integers(1, 200))
def test_an_error_of_what_went_ahead_is_the_drivers_to_see(
    statements: list[tuple[str, list[Row], bytes]], size: int
) -> None:
    own = message("E", b"SERROR\0C22012\0\0") + READY
    whole = answer(statements) + own
    line, driver, _ = waiting(len(statements) + 2)
    for begin in range(0, len(whole), size):
        line.data_received(whole[begin : begin + size])
    assert driver.received == b"".join(around for _, _, around in statements) + own


@given(st.binary(max_size=200))
def test_noise_in_place_of_an_answer_ends_the_connection_or_waits_for_more(noise: bytes) -> None:
    line, driver, transport = waiting(3)
    line.data_received(noise)
    assert transport.aborted or len(driver.received) <= len(noise)


def test_an_answer_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_HEARD", 1_000)
    line, _, transport = waiting(1)
    for _ in range(200):
        if transport.aborted:
            break
        line.data_received(message("C", b"SELECT 1\0"))
    assert transport.aborted
    line, driver, _ = waiting(0)
    line.data_received(b"x" * 1_001)
    assert not line._listening
    assert len(driver.received) == 1_001


def test_what_goes_ahead_is_one_write_with_what_follows() -> None:
    line, _, transport = waiting(0)
    line._ahead.extend([b"a", b"b"])
    line.write(memoryview(b"c"))
    line.write(b"d")
    assert transport.written == [b"abc", b"d"]


def test_what_needed_a_closer_look_is_known_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    foresight = Foresight()
    assert not foresight.knows(lambda: ["a"])
    foresight.learn(["a"])
    assert foresight.knows(lambda: ["b", "a"])
    assert not foresight.knows(lambda: ["b"])
    foresight.learn(range(ahead.CLOSER_NAMES))
    assert not foresight.knows(lambda: ["a"])
    monkeypatch.setattr(ahead, "CLOSER_S", -1)
    foresight.learn(["c"])
    assert not foresight.knows(lambda: ["c"])


def test_nothing_heard_is_nothing_completed() -> None:
    assert heard(DESCRIPTION) == Heard((), (), DESCRIPTION, DESCRIPTION)
