"""A chain as markdown. Whatever comes from outside is capped, stripped of markup, or fenced as data."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from hubscope.chains.report import UNTRUSTED, ChainReport, RunAnalytics

_UNSAFE: Final = re.compile(r"[^\w .:/@+\-]+")


def as_markdown(report: ChainReport) -> str:
    """The whole report."""
    lines = [
        "# Tool chain",
        "",
        f"**{report.message}** in {report.duration_ms:.0f} ms.",
        "",
        f"Chain `{report.chain_id}`"
        + ("" if report.tracked else " (not tracked)")
        + (", can be resumed" if report.resumable else ""),
        "",
        "| # | step | tool | status | attempts | time | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for step in report.steps:
        status = step.status + (f" ({step.reason})" if step.reason else "")
        time = "" if step.duration_ms is None else f"{step.duration_ms:.0f} ms"
        error = _cell(f"{step.error_type}: {step.error_message or ''}", 160) if step.error_type else ""
        lines.append(
            f"| {step.index} | {_name(step.id)} | {_name(step.server)} {_name(step.tool)} | {status}"
            f" | {len(step.attempts)} | {time} | {error} |"
        )
    if report.not_resumable_because:
        lines += ["", f"Cannot be resumed: {_cell(report.not_resumable_because, 300)}"]
    found = [step for step in report.steps if step.result is not None]
    if found:
        lines += ["", "## Results", "", UNTRUSTED]
        for step in found:
            lines += [
                "",
                f"{_name(step.id)}" + (" (truncated)" if step.result_truncated else ""),
                "",
                *_fenced(step.result),
            ]
    if report.analytics is not None:
        lines += ["", "## Analytics", "", *_analytics(report.analytics)]
    return "\n".join(lines) + "\n"


def _analytics(found: RunAnalytics) -> list[str]:
    lines = [
        f"- steps took {found.step_ms:.0f} ms, the chain {found.wall_ms:.0f} ms"
        + (f": parallel efficiency {found.parallel_efficiency:.2f}" if found.parallel_efficiency is not None else ""),
        f"- critical path: {' → '.join(map(_name, found.critical_path)) or 'none'} ({found.critical_path_ms:.0f} ms)",
    ]
    if found.slowest_step is not None:
        lines.append(f"- slowest step: {_name(found.slowest_step.id)} ({found.slowest_step.duration_ms:.0f} ms)")
    lines += [
        f"- {_name(one.id)} completed in {one.completed} of {one.runs} runs" for one in found.completion if one.runs
    ]
    if found.optimization is not None:
        groups = "; ".join(" + ".join(map(_name, group)) for group in found.optimization.parallel)
        lines.append(
            f"- could run together: {groups}; that would save {found.optimization.saved_ms:.0f} ms. "
            + found.optimization.advice
        )
    return lines


def _name(text: str) -> str:
    clean = _UNSAFE.sub("?", text)
    return f"`{clean if len(clean) <= 60 else clean[:59] + '…'}`"


def _cell(text: str, most: int) -> str:
    clean = re.sub(r"[|`<>*_\[\]\\]", " ", " ".join(text.split()))
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _fenced(result: Any) -> list[str]:
    """A result as a code block that nothing in it can close."""
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=1)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, text, fence]
