"""Builds a custom provider: calls what ``provider.name = "MODULE:NAME"`` names."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, cast

from legato.protocol.settings import SettingsError
from legato.worker.importing import import_module, text_of, where

from .reasons import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.worker import config

    from . import base

_STREAM: Final = "stream() as `async def` with `yield`"


def build(settings: config.ProviderSettings) -> base.Provider:
    """Import the callable and call it with ``[provider]``.

    Modules in the working directory are found too, after all others.

    :raises SettingsError: the import or the call fails, or the result is no provider. Without the key.
    """
    module, _, name = settings.name.partition(":")
    found = _attempt(settings, f"{module} cannot be imported", lambda: import_module(module))
    make = getattr(found, name, None)
    if not callable(make):
        raise SettingsError(f"provider.name: {module} has no callable {name}")
    provider = _attempt(settings, f"{settings.name} failed", lambda: make(settings))
    if missing := lacking(provider):
        raise SettingsError(f"provider.name: what {settings.name} answers has no {missing}")
    return cast("base.Provider", provider)


def lacking(provider: object) -> str:
    """The first member of a provider that this object lacks; empty if it has all."""
    model = getattr(provider, "model", None)
    stream, aclose = getattr(provider, "stream", None), getattr(provider, "aclose", None)
    if not isinstance(model, str) or not model:
        return "model, the name of the model"
    if not callable(stream) or inspect.iscoroutinefunction(stream):
        return _STREAM
    if not inspect.iscoroutinefunction(aclose):
        return "aclose() as `async def`"
    return ""


def _attempt(settings: config.ProviderSettings, failure: str, action: Callable[[], Any]) -> Any:
    """Run the user's code.

    :raises SettingsError: it raises anything but a KeyboardInterrupt.
    """
    try:
        return action()
    except KeyboardInterrupt:  # who starts the worker wants to stop it
        raise
    except BaseException as error:  # noqa: BLE001 - users never see a traceback
        said = one_line(
            f"{type(error).__name__}: {text_of(error)}", settings.api_key, *settings.headers.values()
        )
        raise SettingsError(f"provider.name: {failure}: {said}{where(error, __file__)}") from None
