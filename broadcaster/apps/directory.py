"""The applications as they are now: looked up by id and by key."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from legato.protocol.apps import App


class Directory:
    """All applications of the server. Whoever needs one looks it up each time: it may change.

    :ivar by_id: the applications by their ids.
    """

    def __init__(self, apps: Iterable[App]) -> None:
        self.by_id: dict[str, App] = {}
        self._by_key: dict[str, App] = {}
        self.replace(apps)

    def replace(self, apps: Iterable[App]) -> None:
        """From now on these, and no others."""
        self.by_id = {app.id: app for app in apps}
        self._by_key = {key: app for app in self.by_id.values() for key in app.keys}

    def with_key(self, key: str) -> App | None:
        """The application that has this key."""
        return self._by_key.get(key)

    def has(self, app_id: str, option: str) -> bool:
        """Whether the application is there and has switched ``option`` on."""
        app = self.by_id.get(app_id)
        return app is not None and bool(getattr(app, option))
