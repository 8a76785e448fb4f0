"""Look at the built documentation in a real browser: light and dark, on a desktop and on a phone.

    make docs-look                      all pages; exit code 1 if something is wrong
    make docs-look PAGES="index parameters" SHOTS=shots     only these, with a screenshot of each

Every page must fit its window, show no name broken in the middle and no code that is cut off (on a phone, code may
scroll in its box), load nothing from elsewhere, and log no error. What needs no browser, such as dead links, is tested
in tests/docs.

It needs Chromium and its driver: on Debian `apt-get install chromium chromium-driver`, elsewhere Chrome and
chromedriver. `CHROMIUM` and `CHROMEDRIVER` name them if they are not on the path.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
SITE: Final = ROOT / "site"

BELOW: Final = "/docs/"
"""The path that the site is served at: pages must not assume that it is the root of its host."""

JSON = dict[str, "JSON"] | list["JSON"] | str | int | float | bool | None


class Mode(NamedTuple):
    """A window to look at the pages in."""

    name: str
    width: int
    height: int
    scheme: str

    @property
    def phone(self) -> bool:
        """Whether it is a phone's."""
        return self.width < 600


MODES: Final = (
    Mode("desktop-light", 1440, 900, "light"),
    Mode("desktop-dark", 1440, 900, "dark"),
    Mode("phone-light", 390, 844, "light"),
    Mode("phone-dark", 390, 844, "dark"),
)

INSPECT: Final = r"""
const found = [];
const add = (kind, text) => found.push([kind, text.trim().replace(/\s+/g, ' ').slice(0, 90)]);
const visible = element => element.getClientRects().length > 0 && element.checkVisibility({visibilityProperty: true});
const root = document.documentElement;
if (root.scrollWidth > innerWidth) add('page wider than the window', `${root.scrollWidth} px`);
const scrolls = element => {
  for (; element; element = element.parentElement)
    if (/auto|scroll/.test(getComputedStyle(element).overflowX)) return true;
  return false;
};
for (const box of document.querySelectorAll('.md-content :is(p, li, td, dt, dd, pre, img, h1, h2, h3, h4)'))
  if (visible(box) && box.getBoundingClientRect().right > innerWidth + 1 && !scrolls(box))
    add('outside the window', box.innerText || box.src);
for (const pre of document.querySelectorAll('.md-content pre')) {
  for (const box of [pre, pre.querySelector('code')])
    if (box && visible(box) && box.scrollWidth > box.clientWidth + 1) { add('code cut off', pre.innerText); break; }
}
for (const table of document.querySelectorAll('.md-content .md-typeset__scrollwrap')) {
  // On a phone, a table of numbers scrolls, with its first column in place.
  const numbers = innerWidth < 600 && table.querySelector('[data-numbers]');
  if (visible(table) && !numbers && table.scrollWidth > table.clientWidth + 1)
    add('table wider than the text', table.innerText);
}
const range = document.createRange();
const texts = document.createTreeWalker(document.querySelector('.md-content'), NodeFilter.SHOW_TEXT);
for (let node = texts.nextNode(); node; node = texts.nextNode()) {
  if (node.parentElement.closest('pre, script, style, svg') || !visible(node.parentElement)) continue;
  for (const word of node.data.matchAll(/\w{2,}/g)) {
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    const tops = [...range.getClientRects()].filter(each => each.width > 0).map(each => each.top);
    if (Math.max(...tops) - Math.min(...tops) > 6) add('word broken', word[0]);
  }
}
for (const entry of performance.getEntriesByType('resource'))
  if (!entry.name.startsWith(location.origin) && !entry.name.startsWith('data:'))
    add('loaded from elsewhere', entry.name);
for (const image of document.images)
  if (visible(image) && image.complete && image.naturalWidth === 0) add('image missing', image.src);
return found;
"""
"""Returns what is wrong with the page, as pairs of a kind and the place."""


FIRST_FOUND: Final = """
const [done] = arguments;
const wait = setInterval(() => {
  const link = document.querySelector('.md-search-result__link');
  if (link) { clearInterval(wait); done(link.getAttribute('href')); }
}, 50);
setTimeout(() => done(''), 10000);
"""
"""Returns the first page that a search found; empty if it found none within ten seconds."""


@dataclass(frozen=True)
class Browser:
    """Chromium, driven by its WebDriver."""

    client: httpx.Client

    def command(self, path: str, **body: JSON) -> JSON:
        """One command of the WebDriver protocol."""
        response = self.client.post(path, json=body)
        value: JSON = response.json()["value"]
        if response.is_error:
            raise RuntimeError(f"the browser's driver returned an error: {value}")
        return value

    def devtools(self, command: str, **params: JSON) -> JSON:
        """One command of the DevTools protocol."""
        return self.command("goog/cdp/execute", cmd=command, params=params)

    def show(self, mode: Mode) -> None:
        """Change the window."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=mode.width,
            height=mode.height,
            deviceScaleFactor=1,
            mobile=mode.phone,
        )
        scheme: JSON = {"name": "prefers-color-scheme", "value": mode.scheme}
        still: JSON = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme, still])

    def open(self, url: str) -> None:
        """Open a page and wait until it and its fonts are loaded."""
        self.command("url", url=url)
        self.command("execute/async", script="document.fonts.ready.then(arguments[0])", args=[])

    def run(self, script: str) -> JSON:
        """Run a script in the page; returns what it returns."""
        return self.command("execute/sync", script=script, args=[])

    def errors(self) -> list[str]:
        """The errors and warnings logged since the last call."""
        entries = self.command("se/log", type="browser")
        assert isinstance(entries, list)
        return [
            str(entry["message"])
            for entry in entries
            if isinstance(entry, dict) and entry["level"] in ("SEVERE", "WARNING")
        ]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what the window shows, or the whole page."""
        image = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        assert isinstance(image, dict)
        path.write_bytes(base64.b64decode(str(image["data"])))


def program(variable: str, *names: str) -> str:
    """The path of a program, from an environment variable or the path."""
    for name in (os.environ.get(variable, ""), *names):
        if name and (path := shutil.which(name)):
            return path
    raise SystemExit(
        f"{names[0]} is not installed. On Debian: apt-get install chromium chromium-driver. Elsewhere, install "
        f"Chrome and chromedriver, and set {variable} if they are not on the path."
    )


@contextlib.contextmanager
def browser() -> Generator[Browser]:
    """A browser without a window, with a new profile."""
    binary = program("CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    driver = program("CHROMEDRIVER", "chromedriver")
    with contextlib.ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        assert process.stdout is not None
        port = next(
            match[1] for line in process.stdout if (match := re.search(r"successfully on port (\d+)", line))
        )
        options: JSON = {
            "binary": binary,
            "args": [
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--hide-scrollbars", "--force-color-profile=srgb", f"--user-data-dir={profile}"),
            ],
        }
        wanted: JSON = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        base = f"http://127.0.0.1:{port}/session"
        client = stack.enter_context(httpx.Client(timeout=60, trust_env=False))
        response = client.post(base, json={"capabilities": {"alwaysMatch": wanted}})
        if response.is_error:
            raise SystemExit(f"{binary} does not start: {response.json()['value']['message']}")
        client.base_url = f"{base}/{response.json()['value']['sessionId']}/"
        stack.callback(client.delete, "")
        yield Browser(client)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site below a path, and its 404 page for all else."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix(BELOW.rstrip("/")))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.is_file():
            super().send_error(code, message, explain)
            return
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # as in the base class
        pass


@contextlib.contextmanager
def served(site: Path) -> Generator[str]:
    """The site's URL while it is served on this machine."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Handler, directory=str(site))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{BELOW}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def search_from_disk(chromium: Browser, site: Path) -> list[str]:
    """Search in pages that no server serves; returns what is wrong."""
    chromium.open(f"{(site / 'index.html').resolve().as_uri()}?q=top_k")
    found = chromium.command("execute/async", script=FIRST_FOUND, args=[])
    chromium.errors()  # the theme asks in vain for the sitemap, which changes nothing
    return (
        [] if "parameters.html" in str(found) else [f"from disk, the search for top_k found {found!r} first"]
    )


def look(site: Path, pages: Sequence[str], shots: Path | None) -> Counter[str]:
    """Look at pages in every mode; prints what is wrong and returns how often."""
    wrong: Counter[str] = Counter()
    with served(site) as base, browser() as chromium:
        for text in search_from_disk(chromium, site):
            wrong["search from disk"] += 1
            print(text)
        for mode in MODES:
            chromium.show(mode)
            for page in pages:
                chromium.open(base + page)
                found = chromium.run(INSPECT)
                assert isinstance(found, list)
                pairs = [(str(each[0]), str(each[1])) for each in found if isinstance(each, list)]
                # On a phone, code may scroll in its box.
                pairs = [pair for pair in pairs if not (mode.phone and pair[0] == "code cut off")]
                pairs += [("error logged", line) for line in chromium.errors()]
                for kind, text in pairs:
                    wrong[f"{mode.name}: {kind}"] += 1
                    print(f"{mode.name}: {page}: {kind}: {text}")
                if shots is not None:
                    shots.mkdir(parents=True, exist_ok=True)
                    name = f"{page.removesuffix('.html').replace('/', '-')}-{mode.name}.png"
                    chromium.screenshot(shots / name)
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "pages", nargs="*", metavar="PAGE", help="such as parameters; all pages if none is given"
    )
    parser.add_argument("--site", type=Path, default=SITE, help="the built site")
    parser.add_argument("--shots", type=Path, help="a folder for a screenshot of each page in each mode")
    options = parser.parse_args(argv)
    site: Path = options.site
    if not (site / "index.html").is_file():
        raise SystemExit(f"there is no site in {site}; build it with: make docs")
    every = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    pages = [f"{name.removesuffix('.html')}.html" for name in options.pages] or every
    wrong = look(site, pages, options.shots)
    for kind, count in sorted(wrong.items()):
        print(f"{count:5} {kind}")
    print(f"{len(pages)} pages in {len(MODES)} windows: {sum(wrong.values())} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
