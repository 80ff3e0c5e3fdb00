"""Fingerprints: messages of one pattern share one, messages of two do not."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.ingest.fingerprint import fingerprint, pattern


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("Timeout after 30000 ms", "timeout after <*> ms"),
        ("took 12.5s, limit 10s", "took <*>s, limit <*>s"),
        ("ENOENT: no such file or directory, open '/srv/a b/x.txt'", "enoent: no such file or directory, open <text>"),
        ("cannot read /home/alice/x.txt: denied", "cannot read <path>: denied"),
        (r"cannot read C:\Users\alice\x.txt", "cannot read <path>"),
        ("no user 0192c7f2-1111-7222-8333-444455556666", "no user <*>"),
        ("request req_8f3a2b1c failed", "request <*> failed"),
        ("commit 9fceb02 not found", "commit <*> not found"),
        ("segfault at 0xDEADBEEF", "segfault at <*>"),
        ("GET https://api.example.com/v1/users/42?x=1 gave 502", "get <url> gave <*>"),
        ("at 2026-11-21T20:00:00.123Z the cache was cold", "at <time> the cache was cold"),
        ("at 20:00:01 the cache was cold", "at <time> the cache was cold"),
        ('Unknown tool: "read_file"', "unknown tool: <text>"),
        ("can't open the file", "can't open the file"),
        ("mail bob@example.com bounced", "mail <address> bounced"),
        ("two  spaces\n and a line", "two spaces and a line"),
        ("deadbeef cafe decade", "deadbeef cafe decade"),
        ("rate limit exceeded", "rate limit exceeded"),
        ("connect ECONNREFUSED 127.0.0.1:5432", "connect econnrefused <*>:<*>"),
    ],
)
def test_particulars_are_masked_and_words_are_not(message: str, masked: str) -> None:
    assert pattern(message) == masked


def test_no_message_has_no_fingerprint() -> None:
    assert fingerprint(None) is None
    assert fingerprint("") is None


def test_a_fingerprint_never_changes() -> None:
    """It is stored: another one for the same message would split what belongs together."""
    assert fingerprint("Timeout after 30000 ms") == fingerprint("timeout after 5 ms") == "79c2e91c421001fd"


WORDS = st.sampled_from(["file", "not", "found", "timeout", "denied", "while", "reading", "from", "server", "busy"])
TEMPLATES = st.lists(WORDS | st.sampled_from(["{}"]), min_size=1, max_size=6)
FILLERS = {
    "number": st.integers(0, 10**12).map(str),
    "uuid": st.uuids().map(str),
    "path": st.lists(st.sampled_from(["srv", "x1", "b.txt"]), min_size=2, max_size=4).map(lambda p: "/" + "/".join(p)),
    "quoted": st.text(st.characters(categories=["L", "N"]), max_size=20).map(lambda text: f'"{text}"'),
    "url": st.integers(1, 999).map(lambda n: f"https://example.com/{n}/x"),
    "time": st.datetimes().map(lambda t: t.replace(year=2026, month=3, day=4).isoformat(timespec="seconds")),
    "hex": st.integers(2**40, 2**60).map(lambda n: f"0x{n:x}"),
}  # fmt: skip


@given(TEMPLATES, st.sampled_from(sorted(FILLERS)), st.data())
def test_one_template_with_other_particulars_is_one_fingerprint(
    template: list[str], kind: str, data: st.DataObject
) -> None:
    texts = [" ".join(data.draw(FILLERS[kind]) if word == "{}" else word for word in template) for _ in range(2)]
    assert fingerprint(texts[0]) == fingerprint(texts[1])


@given(st.lists(WORDS, min_size=1, max_size=5), st.lists(WORDS, min_size=1, max_size=5), st.integers(0, 99))
def test_other_templates_are_other_fingerprints(one: list[str], other: list[str], number: int) -> None:
    same = one == other
    assert (fingerprint(" ".join([*one, str(number)])) == fingerprint(" ".join([*other, str(number)]))) == same


@given(st.text(max_size=200))
def test_any_text_has_a_fingerprint_and_space_is_no_part_of_it(text: str) -> None:
    assert fingerprint(text) == fingerprint(f"  {text}\n" if text.strip() else text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["a", "1", "-", "a1", "a-", "1-", "/", "a://", '"', "'", " '", "@", "a@", "0x", ".", "f", "f1"]
)
def test_no_message_is_slow(piece: str) -> None:
    pattern(piece * (8_000 // len(piece)))


def test_ids_of_several_kinds_are_masked() -> None:
    assert pattern(f"session {uuid.uuid4().hex} gone") == "session <*> gone"
