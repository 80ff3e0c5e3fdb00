"""A client's configuration: every stdio server wrapped, everything else as it was, and back to the same bytes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.wrap import config_command
from hubscope.wrap.options import parse
from hubscope.wrap.rewrite import InvalidConfiguration, launcher, rewrite, unwrapped, wrapped

START = ["/venv/bin/hubscope"]
FILE = """{
  "theme": "dark",\x20\x20
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": [
        "-y",
        "@modelcontextprotocol/server-filesystem",
        "/home/me/caf\\u00e9"
      ],
      "env": {"TOKEN": "s3cret"}, "disabled": true
    },
    "time": {"command": "mcp-server-time"},
    "git": {"type": "stdio", "args": ["-r", "."], "command": "C:\\/git", "unknown": [1.0, 1e5]},
    "none": {"command": "x", "args": [ ]},
    "remote": {"type": "http", "url": "https://example.com/mcp"},
    "odd": 5
  }
}
"""


def entries(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)["mcpServers"]
    return found


def test_every_stdio_server_is_wrapped_and_nothing_else_changes() -> None:
    text, changes = wrapped(FILE, START)
    before, after = entries(FILE), entries(text)
    assert after["filesystem"]["command"] == "/venv/bin/hubscope"
    assert after["filesystem"]["args"] == [
        "wrap", "--name", "filesystem", "--", "npx", "-y", "@modelcontextprotocol/server-filesystem", "/home/me/café"
    ]  # fmt: skip
    assert after["time"]["args"] == ["wrap", "--name", "time", "--no-args-key", "--", "mcp-server-time"]
    assert after["git"]["args"] == ["wrap", "--name", "git", "--", "C:/git", "-r", "."]
    assert after["none"]["args"] == ["wrap", "--name", "none", "--", "x"]
    for name, entry in before.items():
        if isinstance(entry, dict) and "command" in entry:
            assert {key: after[name][key] for key in entry if key not in ("command", "args")} == {
                key: entry[key] for key in entry if key not in ("command", "args")
            }
        else:
            assert after[name] == entry
    assert {change.server: change.done for change in changes} == {
        "filesystem": "wrapped", "time": "wrapped", "git": "wrapped", "none": "wrapped", "remote": "left alone",
        "odd": "left alone",
    }  # fmt: skip
    # The layout is kept, also where the file's lines end in spaces.
    assert '"theme": "dark",  \n' in text
    assert '        "wrap",\n        "--name",\n' in text


def test_undoing_gives_the_same_bytes() -> None:
    assert unwrapped(wrapped(FILE, START)[0])[0] == FILE


def test_wrapping_again_changes_nothing_and_neither_does_undoing_what_is_not_wrapped() -> None:
    once = wrapped(FILE, START)[0]
    assert wrapped(once, START)[0] == once
    assert wrapped(once, ["/another/python3.12", "-m", "hubscope"])[0] == once
    assert unwrapped(FILE)[0] == FILE


def test_what_was_added_to_a_wrapped_entry_stays_when_it_is_undone() -> None:
    text = wrapped('{"mcpServers": {"time": {"command": "t"}}}', START)[0]
    text = text.replace('"t"]', '"t", "--utc"]').replace('{"command"', '{"env": {}, "command"')
    assert entries(unwrapped(text)[0]) == {"time": {"env": {}, "command": "t", "args": ["--utc"]}}


@pytest.mark.parametrize(
    "entry",
    [
        {"command": 5}, {"command": ""}, {"command": "x", "args": "y"}, {"command": "x", "args": [1]}, [], None,
        {"url": "http://x"}, {"type": "sse", "command": "x"}, {},
    ],
)  # fmt: skip
def test_what_is_no_stdio_server_is_left_alone(entry: Any) -> None:
    text = json.dumps({"mcpServers": {"s": entry}})
    after, (change,) = wrapped(text, START)
    assert (after, change.done) == (text, "left alone")
    assert unwrapped(text)[0] == text


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"mcpServers": []}', '{"servers": {}}', '{"mcpServers": {}} // comment', "[" * 99_999],
)
def test_a_file_that_is_no_configuration_is_one_clear_error(text: str) -> None:
    with pytest.raises(InvalidConfiguration):
        wrapped(text, START)


SPACE = st.sampled_from(["", " ", "\n", "\r\n\t", "\n    "])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def json_text(draw: st.DrawFn, value: Any) -> str:
    """A value as JSON with arbitrary space and escaping."""

    def pad() -> str:
        return draw(SPACE)

    if isinstance(value, dict):
        members = [f"{pad()}{draw(json_text(key))}{pad()}:{draw(json_text(item))}" for key, item in value.items()]
        return f"{pad()}{{{','.join(members)}{pad()}}}{pad()}"
    if isinstance(value, list):
        return f"{pad()}[{','.join(draw(json_text(item)) for item in value)}{pad()}]{pad()}"
    return pad() + json.dumps(value, ensure_ascii=draw(st.booleans())) + pad()


MORE = {"args": st.lists(TEXT, max_size=3), "env": st.dictionaries(TEXT, TEXT, max_size=2), "type": st.just("stdio")}
COMMAND = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
ENTRY = st.fixed_dictionaries({"command": COMMAND}, optional=MORE) | st.fixed_dictionaries({"url": TEXT})
SERVERS = st.dictionaries(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5), ENTRY, max_size=4)


@given(st.data(), SERVERS, st.lists(st.sampled_from(["command", "args", "env", "type"]), max_size=4))
def test_any_file_comes_back_as_it_was(data: st.DataObject, servers: dict[str, Any], order: list[str]) -> None:
    servers = {
        name: dict(sorted(entry.items(), key=lambda item: order.index(item[0]) if item[0] in order else 9))
        for name, entry in servers.items()
    }
    text = data.draw(json_text({"before": [1, "x"], "mcpServers": servers, "after": None}))
    new, changes = wrapped(text, START, ["--url", "http://h:1"])
    for change in changes:
        if change.done == "wrapped":
            entry, original = entries(new)[change.server], servers[change.server]
            parsed = parse(entry["args"][1:])
            assert parsed is not None
            assert parsed[0] == {"name": change.server, "url": "http://h:1"}
            assert parsed[1] == (original["command"], *original.get("args", []))
    assert {change.server for change in changes if change.done == "wrapped"} == {
        name for name, entry in servers.items() if "command" in entry
    }
    assert unwrapped(new)[0] == text


def test_the_file_is_replaced_as_a_whole_with_a_copy_beside_it(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    before = real.read_bytes()
    real.chmod(0o640)
    link.symlink_to(real)
    changes, changed = rewrite(link, lambda text: wrapped(text, START), dry_run=True)
    assert (changed, real.read_bytes()) == (True, before)
    assert sorted(os.listdir(tmp_path)) == ["link.json", "real.json"]
    assert rewrite(link, lambda text: wrapped(text, START), dry_run=False) == (changes, True)
    assert link.is_symlink()
    assert (tmp_path / "real.json.before-hubscope").read_bytes() == before
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o640] * 3
    assert rewrite(link, unwrapped, dry_run=False)[1]
    assert real.read_bytes() == before


def test_a_file_that_another_program_changes_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    path.write_text(FILE)

    def interrupted(text: str) -> Any:
        path.write_text("{}")
        return wrapped(text, START)

    with pytest.raises(InvalidConfiguration, match="another program"):
        rewrite(path, interrupted, dry_run=False)
    assert path.read_text() == "{}"


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(InvalidConfiguration):
        rewrite(tmp_path / "x", unwrapped, dry_run=False)


def test_the_command_tells_what_it_did_without_arguments_or_secrets(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    path.write_text(FILE)
    key = tmp_path / "key"
    key.write_text("hsk_x")
    said: list[str] = []
    environment = {"HUBSCOPE_URL": "http://hub:3401", "HUBSCOPE_API_KEY_FILE": str(key)}
    config_command.run(str(path), {}, environment, undo=False, dry_run=False, tell=said.append)
    assert said[:2] == ["wrapped     filesystem  (npx)", "wrapped     time  (mcp-server-time)"]
    assert said[4:6] == ["left alone  remote  (not a stdio server)", "left alone  odd  (not an object)"]
    assert "servers.json.before-hubscope" in said[6]
    assert "s3cret" not in "".join(said)
    args = entries(path.read_text())["time"]["args"]
    assert args[args.index("wrap") :][:7] == [
        "wrap",
        "--name",
        "time",
        "--url",
        "http://hub:3401",
        "--api-key-file",
        str(key),
    ]
    said.clear()
    config_command.run(str(path), {}, environment, undo=False, dry_run=False, tell=said.append)
    assert said[-1].endswith("nothing to do")
    config_command.run(str(path), {}, environment, undo=True, dry_run=False, tell=said.append)
    assert path.read_text() == FILE


def test_the_launcher_starts_this_hubscope() -> None:
    start = launcher()
    assert Path(start[0]).is_absolute()
    assert os.access(start[0], os.X_OK)
