"""Takes an HTML page apart: what is in which section, what it would fetch, and whether its tags are closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}
FETCHING = {"src", "href", "srcset", "data", "poster", "action", "background"}


@dataclass
class Page(HTMLParser):
    """What a page consists of."""

    texts: dict[str, str] = field(default_factory=dict)
    """By the id of the innermost section or figure."""
    addresses: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    images: list[dict[str, str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    """Their classes."""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [given[name] for name in FETCHING & given.keys()]
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "img":
            self.images.append(given)
        if "verdict" in given.get("class", "").split():
            self.verdicts.append(given["class"])
        if tag not in VOID:
            self._open.append((tag, given.get("id", "") if tag in ("section", "figure", "nav") else ""))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        where = next((name for _, name in reversed(self._open) if name), "")
        self.texts[where] = self.texts.get(where, "") + data

    @property
    def is_closed(self) -> bool:
        """Whether every tag that was opened is closed."""
        return not self._open

    def section(self, name: str) -> str:
        """Its text on one line."""
        return " ".join(self.texts.get(name, "").split())


def read_page(text: str) -> Page:
    """A page from its HTML."""
    page = Page()
    page.feed(text)
    page.close()
    assert page.is_closed
    return page
