"""Does recording work, from here to the answers? 000's checkIntegrationHealth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import msgspec

from hubscope.client.recorder import DEFAULT_URL

READY_PATH: Final = "/readyz"
STATUS_PATH: Final = "/api/v1/integration-status"
REASON_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class IntegrationHealth:
    """How hubscope is, as seen from a hub.

    Attributes:
        healthy: events are taken, and nothing between them and the answers is known to be wrong.
        ready: events are taken.
        reasons: what is wrong, a sentence each; empty when healthy.
        version: of hubscope; None where the key may not read (a key with the scope `ingest` alone may not: then
            `healthy` says no more than `ready`).
    """

    healthy: bool
    ready: bool
    reasons: tuple[str, ...] = ()
    version: str | None = None


class _Problem(msgspec.Struct):
    detail: str = ""


class _Status(msgspec.Struct):
    status: str
    problems: list[str] = []
    version: str | None = None


async def check_integration_health(
    url: str | None = None,
    *,
    api_key: str | None = None,
    timeout_s: float = 5.0,
    http: httpx2.AsyncClient | None = None,
) -> IntegrationHealth:
    """Ask hubscope's /readyz and /api/v1/integration-status. Never raises for hubscope's sake.

    Args:
        url: where hubscope is; HUBSCOPE_URL when left out.
        api_key: HUBSCOPE_API_KEY when left out.
        timeout_s: longest for each of the two questions.
        http: an HTTP client of your own; it is not closed.
    """
    url = (url or os.environ.get("HUBSCOPE_URL") or DEFAULT_URL).rstrip("/")
    api_key = api_key or os.environ.get("HUBSCOPE_API_KEY") or None
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    here = httpx2.URL(url).host in ("127.0.0.1", "::1", "localhost")
    asking = http or httpx2.AsyncClient(trust_env=not here, timeout=timeout_s)
    try:
        ready = await asking.get(url + READY_PATH, headers=headers, timeout=timeout_s)
        if ready.status_code != 200:
            return IntegrationHealth(False, False, (f"hubscope is not ready: {_detail(ready)}",))
        status = await asking.get(url + STATUS_PATH, headers=headers, timeout=timeout_s)
    except httpx2.HTTPError as error:
        return IntegrationHealth(False, False, (f"hubscope cannot be reached ({type(error).__name__})",))
    finally:
        if http is None:
            await asking.aclose()
    if status.status_code == 403:
        return IntegrationHealth(True, True)
    if status.status_code != 200:
        return IntegrationHealth(False, status.status_code != 401, (f"hubscope answers: {_detail(status)}",))
    try:
        told = msgspec.json.decode(status.content, type=_Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return IntegrationHealth(False, False, ("what answers there is not hubscope",))
    reasons = tuple(problem[:REASON_CHARS] for problem in told.problems)
    return IntegrationHealth(told.status == "healthy", True, reasons, told.version)


def _detail(answer: Any) -> str:
    try:
        said = msgspec.json.decode(answer.content, type=_Problem).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = ""
    return said[:REASON_CHARS] or f"status {answer.status_code}"
