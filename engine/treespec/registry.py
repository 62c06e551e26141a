"""A table of named things that refuses duplicates and names what it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from treespec.errors import TreespecError

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> item; ``kind`` says in errors what the items are."""

    def __init__(self, kind: str, items: dict[str, T] | None = None) -> None:
        self.kind = kind
        self._items: dict[str, T] = dict(items or {})

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that adds an item under ``name``."""

        def add(item: T) -> T:
            assert name not in self._items, f"{self.kind} {name!r} is registered twice"
            self._items[name] = item
            return item

        return add

    def __contains__(self, name: str) -> bool:
        return name in self._items

    @property
    def names(self) -> list[str]:
        """What it has, sorted."""
        return sorted(self._items)

    def get(self, name: str, where: str | None = None) -> T:
        """The item; an unknown name is an error that lists the known ones and says ``where`` it was read."""
        if name not in self._items:
            known = ", ".join(sorted(self._items))
            raise TreespecError(f"unknown {self.kind}", where=where, received=repr(name), allowed=known)
        return self._items[name]
