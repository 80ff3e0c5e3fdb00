"""Copies between pumps and observer: bounded, and honest about what is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubscope.wrap.pump import Moment
from hubscope.wrap.tap import ITEM_BYTES, Ending, Side, Tap

AT = Moment(1, 1)


def test_what_does_not_fit_is_a_gap_of_known_size() -> None:
    tap = Tap(1_000)
    watch = tap.of("client")
    for chunk in (b"a" * 500, b"b" * 500, b"c" * 101):
        watch(chunk, AT)
    assert tap.items.get_nowait() == ("client", b"a" * 500, AT)
    tap.took(b"a" * 500)
    watch(b"d", AT)
    assert tap.items.get_nowait() == ("client", 601, None)
    assert tap.items.get_nowait() == ("client", b"d", AT)
    assert tap.missed_at_the_end() == {"client": 0, "server": 0}


@given(st.lists(st.tuples(st.sampled_from(["client", "server", "take"]), st.integers(1, 3_000)), max_size=60))
def test_every_byte_is_either_seen_or_counted_within_the_bound(steps: list[tuple[str, int]]) -> None:
    tap = Tap(5_000)
    watch = {"client": tap.of("client"), "server": tap.of("server")}
    shown = seen = 0
    queued: list[bytes] = []

    def take() -> None:
        nonlocal seen
        _, chunk, _ = tap.items.get_nowait()  # type: ignore[misc]
        if isinstance(chunk, int):
            seen += chunk
        else:
            seen += len(chunk)
            tap.took(chunk)
            queued.remove(chunk)

    for what, size in steps:
        if what == "take":
            if not tap.items.empty():
                take()
        else:
            side: Side = "client" if what == "client" else "server"
            before = tap._put[side]
            watch[side](b"x" * size, AT)
            shown += size
            if tap._put[side] != before:
                queued.append(b"x" * size)
        assert sum(len(chunk) + ITEM_BYTES for chunk in queued) <= 5_000
    while not tap.items.empty():
        take()
    assert seen + sum(tap.missed_at_the_end().values()) == shown


def test_an_ending_tells_itself_in_words() -> None:
    assert Ending(3).in_words == "exited with code 3"
    assert Ending(None, 9).in_words == "was ended by SIGKILL"
