"""Opens a page in headless Chromium without any network, and tells what it made of it."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_GET = "needs Chromium: apt-get install chromium"
_SETTINGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
_CONSOLE = re.compile(r":CONSOLE[:(][^\]]*\] (.*)")
# In the page's own terms, and put into a mark that --dump-dom prints.
_PROBE = """<script>
addEventListener("load", () => {
  const heading = document.querySelector("table.data th button");
  if (heading) heading.click();
  const root = document.documentElement;
  root.dataset.probe = JSON.stringify({
    images: [...document.images].map((image) => image.naturalWidth),
    requested: performance.getEntriesByType("resource").map((entry) => entry.name),
    sorted: heading ? heading.parentElement.getAttribute("aria-sort") : "",
    overflow: root.scrollWidth - root.clientWidth,
  });
});
</script></html>"""


@dataclass(frozen=True)
class Seen:
    """A page as the browser has it."""

    images: list[int]
    """Widths in pixels; 0 is a picture that cannot be shown."""
    requested: list[str]
    sorted: str
    overflow: int
    """Pixels by which the page is wider than the window."""
    console: list[str]


def find_browser() -> str | None:
    """The program, None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def look_at(browser: str, page: Path, width: int = 1280) -> Seen:
    """Load a copy of the page, beside it, with a probe at its end."""
    probed = page.with_name(f"probed-{page.name}")
    probed.write_text(page.read_text(encoding="utf-8").replace("</html>", _PROBE), encoding="utf-8")
    done = _call(browser, f"--window-size={width},900", "--dump-dom", probed.as_uri())
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, f"the page did not load:\n{done.stderr[-2000:]}"
    probe: dict[str, Any] = json.loads(html.unescape(found[1]))
    return Seen(**probe, console=_CONSOLE.findall(done.stderr))


def screenshot(browser: str, page: Path, picture: Path, width: int, height: int) -> None:
    """A PNG of the page's upper part."""
    _call(browser, f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri())


def _call(browser: str, *words: str) -> subprocess.CompletedProcess[str]:
    # Not pytest's folder: the path of a socket in it must be short.
    with tempfile.TemporaryDirectory() as folder:
        command = [browser, *_SETTINGS, f"--user-data-dir={folder}/profile", *words]
        environment = os.environ | {"HOME": folder, "TMPDIR": folder}
        # A group of its own, because the browser is many processes.
        process = subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            stdout, stderr = process.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
