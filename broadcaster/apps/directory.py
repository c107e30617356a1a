"""The current applications, by id and by key."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from legato.protocol.apps import App


class Directory:
    """The current applications. They may change, so look an application up on each use.

    :ivar by_id: the applications by their ids.
    """

    def __init__(self, apps: Iterable[App]) -> None:
        self.by_id: dict[str, App] = {}
        self._by_key: dict[str, App] = {}
        self.replace(apps)

    def replace(self, apps: Iterable[App]) -> None:
        """Replace all applications."""
        self.by_id = {app.id: app for app in apps}
        self._by_key = {key: app for app in self.by_id.values() for key in app.keys}

    def with_key(self, key: str) -> App | None:
        """The application that has this key."""
        return self._by_key.get(key)

    def has(self, app_id: str, option: str) -> bool:
        """Whether the application exists and has ``option`` enabled."""
        app = self.by_id.get(app_id)
        return app is not None and bool(getattr(app, option))
