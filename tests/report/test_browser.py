"""The page in headless Chromium, from disk and without network: pictures show, nothing is asked for, nothing fails."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from report.cli import main
from tests.report.browser import HOW_TO_GET, find_browser, look_at, screenshot
from tests.report.results_files import write_config, write_results

FIGURES = ("server_latency", "tokens_per_step")
WIDTHS = {"laptop": 1280, "phone": 500}  # Chromium's window is never narrower

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> str:
    found = find_browser()
    if found is None:
        print(HOW_TO_GET)
        pytest.skip(HOW_TO_GET)
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    results = write_results(folder / "results", label="<script>alert(1)</script>", figures=FIGURES)
    config = write_config(folder / "config")
    output = folder / "report.html"
    assert main(["--results", str(results), "--output", str(output), "--config-dir", str(config)]) == 0
    return output


@pytest.mark.parametrize("device", WIDTHS)
def test_it_opens_from_disk(browser: str, page: Path, device: str) -> None:
    seen = look_at(browser, page, WIDTHS[device])
    assert len(seen.images) == len(FIGURES) and min(seen.images) > 0
    assert seen.requested == []
    assert seen.console == []
    assert seen.sorted == "ascending"
    assert seen.overflow == 0


def test_what_it_must_not_do_would_be_seen(browser: str, page: Path, tmp_path: Path) -> None:
    bad = '<img src="http://example.invalid/x.png"><div style="width: 3000px">x</div></body>'
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(page.read_text().replace("</body>", bad))
    seen = look_at(browser, spoilt)
    assert min(seen.images) == 0
    assert any("example.invalid" in line for line in seen.console)
    assert seen.overflow > 0
    lax = tmp_path / "lax.html"
    lax.write_text(spoilt.read_text().replace("Content-Security-Policy", "x"))
    assert look_at(browser, lax).requested == ["http://example.invalid/x.png"]


@pytest.mark.parametrize("device", WIDTHS)
def test_a_picture_of_it_can_be_taken(browser: str, page: Path, tmp_path: Path, device: str) -> None:
    picture = tmp_path / "picture.png"
    screenshot(browser, page, picture, WIDTHS[device], 900)
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (WIDTHS[device], 900)
