"""Recording put around a hub that was not written for it. 000's bootstrapPostgreSQLIntegration, for Python.

A hub is an object with some of the methods in `HOOKS`, or a mapping of those names to functions. Each is replaced by
one that does the same and records it; leaving the block puts things back. Nothing that hubscope does or fails to do
reaches the hub.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self

import msgspec
from msgspec import Raw

from hubscope.client.health import IntegrationHealth, check_integration_health
from hubscope.client.recorder import DEFAULT_URL, MESSAGE_CHARS, Client
from hubscope.errors import CannotWire
from hubscope.model import HubEvent, ServerEvent, ServerState

log = logging.getLogger("hubscope.client")

Hook = Literal["call_tool", "on_server_connected", "on_server_disconnected", "on_tools_changed"]
Function = Callable[..., Any]

HOOKS: Final[Mapping[Hook, tuple[str, ...]]] = MappingProxyType(
    {
        "call_tool": ("server", "tool"),
        "on_server_connected": ("server",),
        "on_server_disconnected": ("server",),
        "on_tools_changed": ("server",),
    }
)
"""Method -> what its parameters must tell. `call_tool` is `async`; the others may be either."""
PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"server": ("server", "server_name", "server_id"), "tool": ("tool", "tool_name", "name")}
)
"""What must be told -> the parameters that may tell it, the first that is there."""
FIELDS: Final = frozenset({"client", "session_id", "transport", "trace_id", "span_id", "chain_id", "step_index"})
"""Fields of a `tool_call` that `fields` may give."""


def bootstrap(
    hub: object | Mapping[str, Function],
    *,
    url: str | None = None,
    api_key: str | None = None,
    name: str = "",
    names: Mapping[Hook, str] | None = None,
    fields: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    client: Client | None = None,
) -> Integration:
    """Record a hub's tool calls and what happens to its servers: `async with bootstrap(hub): ...`.

    Args:
        hub: an object with some of the methods in `HOOKS`, or a mapping of such names to functions.
        url: where hubscope is; HUBSCOPE_URL when left out.
        api_key: HUBSCOPE_API_KEY when left out.
        name: which hub reports, where there are several.
        names: what the hub calls a hook, where that is something else: `{"call_tool": "invoke"}`.
        fields: more fields of each call (`FIELDS`) from the arguments of the call, by parameter.
        client: one of your own, which is neither started nor closed.

    Raises:
        CannotWire: the hub has none of the hooks, or one that cannot be recorded; says which and why.
    """
    return Integration(hub, _found(hub, names or {}), url, api_key, name, fields, client)


class Integration:
    """A hub that is recorded; made by `bootstrap`. Use it as an async context manager, or `start` and `close` it.

    Attributes:
        client: to record more by hand; from `start` on.
        wired: hook -> the function that does the same and records it. Where the hub is a mapping, call these.
    """

    client: Client

    def __init__(
        self,
        hub: object,
        found: Mapping[Hook, tuple[str, Function]],
        url: str | None,
        api_key: str | None,
        name: str,
        fields: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
        client: Client | None,
    ) -> None:
        self._hub = hub
        self._found = found
        self._url = url or os.environ.get("HUBSCOPE_URL") or DEFAULT_URL
        self._api_key = api_key or os.environ.get("HUBSCOPE_API_KEY") or None
        self._name = name
        self._fields = fields
        self._own_client = client is None
        self._complained = False
        self._started = False
        if client is not None:
            self.client = client
        self.wired: Mapping[Hook, Function] = MappingProxyType(
            {hook: self._recorded(hook, function) for hook, (_, function) in found.items()}
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to record. Does not ask whether hubscope is there: see `health`."""
        if self._own_client:
            self.client = Client(self._url, api_key=self._api_key, hub=self._name)
            await self.client.__aenter__()
        if not isinstance(self._hub, Mapping):
            for hook, (name, _) in self._found.items():
                setattr(self._hub, name, self.wired[hook])
        self._started = True
        self._tell("hub_started", hooks=sorted(self._found))

    async def close(self) -> None:
        """Put the hub's methods back, and send what waits."""
        if not self._started:
            return
        self._started = False
        if not isinstance(self._hub, Mapping):
            for hook, (name, _) in self._found.items():
                if vars(self._hub).get(name) is self.wired[hook]:  # else somebody has put something around it
                    delattr(self._hub, name)
        self._tell("hub_stopped")
        if self._own_client:
            await self.client.__aexit__(None, None, None)

    async def health(self) -> IntegrationHealth:
        """Whether what is recorded arrives and is answered from."""
        return await check_integration_health(self._url, api_key=self._api_key)

    # What is put around each hook

    def _recorded(self, hook: Hook, function: Function) -> Function:
        signature = inspect.signature(function)
        if hook == "call_tool":
            return self._recorded_call(function, signature)

        @functools.wraps(function)
        def happened(*args: Any, **kwargs: Any) -> Any:
            about = _about(hook, signature, args, kwargs)
            if about is not None and self._started:
                self._safely(self._happened, hook, about["server"])
            return function(*args, **kwargs)

        return happened

    def _recorded_call(self, function: Function, signature: inspect.Signature) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        async def call_tool(*args: Any, **kwargs: Any) -> Any:
            about = _about("call_tool", signature, args, kwargs)
            if about is None or not self._started:
                return await function(*args, **kwargs)  # a call that does not fit fails by itself
            more = self._safely(self._more, signature, args, kwargs) or {}
            with self.client.call(about["server"], about["tool"], **more) as call:
                result = await function(*args, **kwargs)
                if _of(result, "is_error", "isError") is True:
                    call.status, call.error_type = "error", "tool_error"
                    call.error_message = self._safely(_first_words, result)
                return result

        return call_tool

    def _more(self, signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
        if self._fields is None:
            return {}
        given = dict(self._fields(signature.bind(*args, **kwargs).arguments))
        unknown = sorted(set(given) - FIELDS)
        if unknown:
            raise TypeError(f"fields gave {unknown[0]!r}; allowed: {', '.join(sorted(FIELDS))}")
        return {
            name: int(value) if name == "step_index" else str(value)
            for name, value in given.items()
            if value is not None
        }

    def _happened(self, hook: Hook, server: str) -> None:
        if hook == "on_tools_changed":
            self._tell("tools_list_changed", server=server)
            return
        connected = hook == "on_server_connected"
        outcome, state = ("connected", "up") if connected else ("disconnected", "down")
        told: ServerState = "up" if state == "up" else "down"
        self.client.record(
            ServerEvent(time=datetime.now(UTC), server=server, source="connection", outcome=outcome, state=told)
        )

    def _tell(self, name: str, **about: Any) -> None:
        payload = Raw(msgspec.json.encode(about))
        self.client.record(HubEvent(time=datetime.now(UTC), name=name, payload=payload))

    def _safely(self, function: Function, *args: Any) -> Any:
        """Recording is never a reason for a hub to fail."""
        try:
            return function(*args)
        except Exception:  # whatever a hub hands over: told once, and the hub goes on
            if not self._complained:
                self._complained = True
                log.warning("something of the hub cannot be recorded", exc_info=True)
            return None


def _found(hub: object, names: Mapping[Hook, str]) -> dict[Hook, tuple[str, Function]]:
    """The hooks that a hub has: hook -> (its own name for it, the function)."""
    for hook in names:
        if hook not in HOOKS:
            raise CannotWire(f"names: {hook!r} is no hook; allowed: {', '.join(HOOKS)}")
    found: dict[Hook, tuple[str, Function]] = {}
    for hook, needed in HOOKS.items():
        name = names.get(hook, hook)
        function = hub.get(name) if isinstance(hub, Mapping) else getattr(hub, name, None)
        if function is None:
            if hook in names:
                raise CannotWire(f"names: the hub has no {name!r}")
            continue
        if not callable(function):
            raise CannotWire(f"{name} is not a function")
        if hook == "call_tool" and not inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise CannotWire(f"{name} must be an `async def`")
        parameters = inspect.signature(function).parameters
        for what in needed:
            if not any(each in parameters for each in PARAMETERS[what]):
                raise CannotWire(
                    f"{name}({', '.join(parameters)}) does not tell the {what}: a parameter must be called one of"
                    f" {', '.join(PARAMETERS[what])}"
                )
        if not isinstance(hub, Mapping) and not hasattr(hub, "__dict__"):
            raise CannotWire(f"{type(hub).__name__} has __slots__: give its functions as a mapping instead")
        found[hook] = (name, function)
    if not found:
        raise CannotWire(f"the hub has none of {', '.join(HOOKS)}; say what it calls them: names={{'call_tool': ...}}")
    return found


def _about(hook: Hook, signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, str] | None:
    """What a call's arguments tell, by `HOOKS`; None where they do not fit the function."""
    try:
        given = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    given.apply_defaults()
    about = {}
    for what in HOOKS[hook]:
        name = next(each for each in PARAMETERS[what] if each in signature.parameters)
        about[what] = str(given.arguments[name])
    return about


def _of(result: Any, *names: str) -> Any:
    """A field of a result that is an object or a mapping."""
    for name in names:
        value = result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)
        if value is not None:
            return value
    return None


def _first_words(result: Any) -> str | None:
    """The first text of a result."""
    for part in _of(result, "content") or ():
        text = _of(part, "text")
        if isinstance(text, str):
            return text[:MESSAGE_CHARS]
    return None
