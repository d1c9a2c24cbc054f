"""What a source or a sink may do outside, as far as the YAML grants it: behind `http`, `tcp`, `secrets` and `state`."""

from __future__ import annotations

from typing import Any, Callable

from . import host
from .describe import PluginError, Rejection

# In a test: what stands in for the world outside. See `testing.outside`.
doubles: dict[str, Any] = {}


def call(name: str, run: Callable[[Any], Any]) -> Any:
    """One call outside. What the host refuses, or what fails there, is raised as a `PluginError`."""
    bound = host.bound()
    its = doubles.get(name) if bound is None else getattr(bound, name, None)
    if its is None:
        where = "there is no host here" if bound is None else "a sink keeps no state"
        raise PluginError.terminal("PLUGIN_OUTSIDE", f"`{name}` cannot be used: {where}")
    if bound is None:
        return run(its)
    try:
        return run(its)
    except bound.Err as error:
        raise _error_in(bound.types, error.value) from None


def _error_in(types: Any, error: Any) -> PluginError:
    """A failure that the host tells."""
    retry = isinstance(error, types.Error_RetryAfter)
    details = error.value.details if retry else error.value
    why = Rejection(details.code, details.message, details.hint, details.path)
    if retry:
        return PluginError("retry_after", why, error.value.delay_ms)
    return PluginError("needs_operator" if isinstance(error, types.Error_NeedsOperator) else "terminal", why)
