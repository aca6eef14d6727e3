"""Every page of the site in a browser without a network: links, figures, equations, search, narrow screens."""

import functools
import http.server
import json
import re
import subprocess
import threading
from itertools import pairwise
from pathlib import Path
from urllib.parse import urldefrag

import pytest
from axe_playwright_python.sync_playwright import Axe

ROOT = Path(__file__).parents[2]
NARROW = {"width": 390, "height": 844}
RULES = {"color-contrast", "image-alt", "heading-order", "link-name", "html-has-lang", "document-title"}

# what a page holds, once its equations are typeset
PAGE = """async () => {
    await window.MathJax?.startup?.promise;
    const all = (selector, read) => [...document.querySelectorAll(selector)].map(read);
    const prose = document.body.cloneNode(true);
    prose.querySelectorAll("script, pre, code, .math").forEach(element => element.remove());
    return {
        ids: all("[id]", element => element.id),
        links: all("a[href]", element => element.href),
        images: all("img", element => ({source: element.src, alt: element.alt, width: element.naturalWidth})),
        headings: all("h1, h2, h3, h4, h5, h6", element => Number(element.tagName[1])),
        equations: all(".math", element => ({
            source: element.textContent,
            good: !!element.querySelector("mjx-container") && !element.querySelector("[data-mjx-error], [fill=red]"),
        })),
        wide: all(".bd-article table", element => element)
            .filter(element => element.offsetWidth > element.parentElement.clientWidth)
            .map(element => element.innerText.slice(0, 60)),
        dollars: prose.textContent.match(/\\$[^$\\n]+\\$/g) ?? [],
    }
}"""

# what is cut off, or scrolls, and is no box of code, figure, output, table or equation
CUT = """() => [...document.querySelectorAll("main, header, footer, main *, header *, footer *")].filter(element => {
    const {overflowX, textOverflow} = getComputedStyle(element);
    return element.scrollWidth > element.clientWidth + 1 && overflowX !== "visible" && textOverflow !== "ellipsis"
        && element.checkVisibility()
        && !element.matches("pre, .cell_output:has(> img), .cell_output > .output, .math, .math *")
        && !element.matches(".pst-scrollable-table-container");
}).map(element => element.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site, as ``make site`` builds it."""
    out = tmp_path_factory.mktemp("built") / "site"
    subprocess.run(["make", "--silent", "site", f"SITE={out}"], cwd=ROOT, check=True)
    return out


@pytest.fixture(scope="module")
def address(folder):
    """Where a web server shows it."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not print every request."""

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def window(browser, address):
    """A browser window and what went wrong in it; other hosts cannot be reached."""
    page, wrong = browser.new_page(color_scheme="light", reduced_motion="reduce"), []

    def local(route):
        if not route.request.url.startswith(address):
            wrong.append(f"{page.url} asks for {route.request.url}")
            return route.abort()
        return route.continue_()

    page.route("**/*", local)
    page.on("console", lambda message: wrong.append(f"{page.url}: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    return page, wrong


@pytest.fixture(scope="module")
def pages(window, address):
    """What each page holds that links lead to, by its address."""
    page, _ = window
    found, queue = {}, [address, f"{address}search.html"]
    for url in queue:  # which grows
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(color_scheme="light")
        if not page.goto(url).ok:
            continue
        found[url] = page.evaluate(PAGE)
        found[url]["axe"] = [("light", rule) for rule in barriers(page)]
        page.emulate_media(color_scheme="dark")
        found[url]["axe"] += [("dark", rule) for rule in barriers(page, runOnly=["color-contrast"])]
        page.set_viewport_size(NARROW)
        found[url]["width"] = page.evaluate("document.documentElement.scrollWidth")
        found[url]["cut"] = page.evaluate(CUT)
        links = dict.fromkeys(urldefrag(link).url for link in found[url]["links"])
        queue += [link for link in links if link.startswith(address) and link.endswith(".html") and link not in queue]
    return found


def barriers(page, **options):
    """What axe finds in a page, of whose tables it sees the first rows."""
    options |= {"resultTypes": ["violations"], "preload": False}  # it would look for style sheets in wrong places
    return Axe().run(page, context={"exclude": ["tr:nth-child(n+9)"]}, options=options).response["violations"]


def test_walk_reaches_every_page(pages, folder, address):
    built = {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")}
    left = built - {url.removeprefix(address) for url in pages}
    assert left == {"index.html", "_static/webpack-macros.html"}  # the start page once more; a template of the theme
    sources = [
        path.relative_to(ROOT).with_suffix("")
        for pattern in ("*.md", "data/*.md", "docs/*.md", "notebooks/**/*.ipynb", "*/results/*.md")
        for path in ROOT.glob(pattern)
    ]
    assert [source for source in sources if not (folder / f"{source}.html").exists()] == []


def test_nothing_goes_wrong(pages, window):
    _, wrong = window
    assert wrong == []


def test_every_link_leads_somewhere(pages, window, address):
    page, _ = window
    links = {(url, link) for url, held in pages.items() for link in held["links"] if link.startswith(address)}
    ids = {url: {"", *held["ids"]} for url, held in pages.items()}
    files = {target for _, link in links if (target := urldefrag(link).url) not in pages}
    missing = {target for target in files if not page.request.head(target).ok}
    assert [(url, link) for url, link in links if urldefrag(link).url in missing] == []
    assert [
        (url, link) for url, link in links if urldefrag(link).fragment not in ids.get(urldefrag(link).url, {""})
    ] == []
    assert len(files) > 50


def test_every_stored_figure_is_shown_and_named(pages, address):
    for path in (ROOT / "notebooks").rglob("[01]*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        alts = [
            cell["metadata"]["alt"]
            for cell in cells
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
        assert [
            image["alt"] for image in pages[address + path.relative_to(ROOT).with_suffix(".html").as_posix()]["images"]
        ] == alts
    images = [(url, image) for url, held in pages.items() for image in held["images"]]
    assert [(url, image) for url, image in images if not image["width"]] == []
    assert [(url, image) for url, image in images if len(image["alt"].split()) < 2 or ".png" in image["alt"]] == []


def test_equations_are_typeset(pages, address):
    for path in (ROOT / "notebooks").rglob("[01]*.ipynb"):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
        written = re.findall(r"(\$\$?)[^$]+\1", "\n".join("".join(cell["source"]) for cell in cells))
        assert len(pages[address + path.relative_to(ROOT).with_suffix(".html").as_posix()]["equations"]) == len(written)
    equations = [(url, equation) for url, held in pages.items() for equation in held["equations"]]
    assert [(url, equation["source"]) for url, equation in equations if not equation["good"]] == []
    assert [(url, held["dollars"]) for url, held in pages.items() if held["dollars"]] == []


def test_search_finds_a_word(window, address):
    page, wrong = window
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(address)
    page.locator("button.search-button__button:visible").first.click()
    page.locator("#pst-search-dialog input[type=search]").fill("silhouette")
    page.keyboard.press("Enter")
    page.locator("#search-results li a", has_text="Does clustering find DME").first.click()
    page.wait_for_url(re.compile(r"/notebooks/(open/)?04_clustering\.html"))  # synthetic or real, whichever is first
    assert "silhouette" in page.locator("article").inner_text()
    assert wrong == []


def test_a_narrow_screen_scrolls_only_down(pages):
    assert {url: held["width"] for url, held in pages.items() if held["width"] > NARROW["width"]} == {}
    assert {url: held["cut"] for url, held in pages.items() if held["cut"]} == {}


def test_tables_fit_a_wide_screen_and_keep_their_columns_behind_a_fold(pages, window, address):
    assert {url: held["wide"] for url, held in pages.items() if held["wide"]} == {}
    page, _ = window
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{address}notebooks/04_clustering.html")
    last = page.locator("table.folded").first.locator("tr").nth(2).locator("td").last
    assert not last.is_visible()
    page.get_by_text("more columns").first.click()
    assert last.is_visible()


def test_headings_are_in_order(pages):
    levels = {url: held["headings"] for url, held in pages.items()}
    assert {url: found for url, found in levels.items() if found[:1] != [1] or found.count(1) != 1} == {}
    assert {url: found for url, found in levels.items() if any(b > a + 1 for a, b in pairwise(found))} == {}


def test_axe_finds_no_barrier(pages):
    found = [
        (mode, rule["id"], rule["impact"], url, node["html"][:120])
        for url, held in pages.items()
        for mode, rule in held["axe"]
        for node in rule["nodes"]
        if rule["id"] in RULES or rule["impact"] in ("serious", "critical")
    ]
    assert found == []


def test_the_site_is_small(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 15e6
