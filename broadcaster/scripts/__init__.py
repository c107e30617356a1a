"""Lua that runs in Redis. Each file's head states its keys, its arguments and its answer."""

from importlib import resources


def text(name: str) -> str:
    """The source of a script."""
    return resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
