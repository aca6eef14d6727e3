"""Sphinx settings of the site: README, notebooks, docs and measured tables, rendered where they lie in the repository.

``make site`` calls Sphinx with the repository's root as source folder, so that the links of the repository are those
of the site. Nothing is executed and nothing is fetched, neither by the build nor by the pages.
"""

import json
import re
import shutil
from glob import glob
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from pygments.lexers import TextLexer
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax"

project = "RURANET++, reproduced"
html_title = project
language = "en"
root_doc = "README"
extensions = ["myst_nb"]
PROSE = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "data/README.md", "models/README.md", "docs/*.md"]
include_patterns = [*PROSE, "notebooks/**.ipynb", "site/*.md", "*/results/*.md"]
# of the many tables of figures/ those that a page leads to
TABLES = re.compile(r"\((?:\.\./)?(figures/\w+/\w+\.md)\)")
include_patterns += [table for page in PROSE for path in ROOT.glob(page) for table in TABLES.findall(path.read_text())]
exclude_patterns = [".*", "build", "data/raw", "data/store"]  # large: not even walked through

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
# tables need the width
WIDE = ("README", "search", "docs/results", "site/paper_versus_ours", "site/files", "notebooks/**")
html_sidebars = {page: [] for page in WIDE}
html_favicon = "_static/icon.svg"
html_theme_options = {
    "logo": {"text": project},
    "footer_start": ["sphinx-version"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": {"[!n]*": ["page-toc"]},  # all but notebooks
}
# one file of the 15 MB that the extension would copy; it draws letters as paths and needs no font
html_static_path = ["_static", str(MATHJAX / "tex-svg.js")]
mathjax_path = "tex-svg.js"
html_css_files = ["site.css"]
html_js_files = ["fold.js"]
html_copy_source = False
html_show_sourcelink = False
html_use_index = False

CONTENTS = """
```{toctree}
:hidden:

site/paper_versus_ours
site/notebooks
site/documentation
site/measurements
site/files
```
"""


def complete(app, docname, source):
    """Add what a page has in the site alone: the README its contents, a table a title; give a notebook's alt texts."""
    if docname == root_doc:
        (exhibits,) = re.findall("<!-- exhibits.*?<!-- end -->", (ROOT / "docs/results.md").read_text(), re.DOTALL)
        exhibits = exhibits.replace("](../", "](")  # the site has room for all of them
        source[0] = re.sub("<!-- summary.*?<!-- end -->", lambda _: exhibits, source[0], flags=re.DOTALL) + CONTENTS
    elif docname.startswith("figures/") or "/results/" in docname:
        name = Path(docname).name
        title = f"---\norphan: true\n---\n# {name.replace('_', ' ').capitalize()}\n\n"
        source[0] = f"{title}{source[0]}\n[{docname}.csv]({name}.csv)\n"
    elif docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            cell["metadata"]["mystnb"] = {"image": {"alt": cell["metadata"].get("alt", "")}}
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        injected = "injected-parameters" in code[1]["metadata"].get("tags", [])  # by papermill, in the open run
        prompts = "Parameters", *(["Parameters of this run"] if injected else []), "Imports"
        for cell, prompt in zip(code, prompts, strict=False):  # the same in all notebooks
            cell["metadata"]["tags"] = ["hide-input"]
            cell["metadata"]["mystnb"] |= {"code_prompt_show": prompt, "code_prompt_hide": prompt}
        # the class by which the theme knows the tables of pandas
        source[0] = json.dumps(notebook).replace("<table id=", '<table class=\\"dataframe\\" id=')


def adapt(app, doctree):
    """Lead links to folders to where the page of files lists them, and drop the heads of tables that have none."""
    page = Path(app.env.doc2path(app.env.docname))
    for link in doctree.findall(addnodes.pending_xref):
        folder = (page.parent / link["reftarget"]).resolve()
        if folder.is_dir():
            link["reftarget"] = folder.relative_to(ROOT).as_posix()
    for head in list(doctree.findall(nodes.thead)):
        if not head.astext().strip():
            head.parent.remove(head)


class Files(SphinxDirective):
    """The files that match one of the patterns, as downloads."""

    required_arguments, optional_arguments = 1, 9

    def run(self):
        """Make a list of them."""
        items = nodes.bullet_list(classes=["files"])
        for name in (
            name for pattern in self.arguments for name in sorted(glob(pattern, root_dir=ROOT, recursive=True))
        ):
            link = addnodes.download_reference(reftarget=f"/{name}", refdoc=self.env.docname)
            link += nodes.literal(name, name)
            items += nodes.list_item("", nodes.paragraph("", "", link))
        return [items]


def finish(app, exception):
    """Make the README what a web server shows first, and leave out what only debuggers of the theme read."""
    if exception is None:
        shutil.copy(app.outdir / "README.html", app.outdir / "index.html")
        for path in app.outdir.rglob("*.map"):
            path.unlink()


def setup(app):
    """Called by Sphinx."""
    app.add_lexer("csv", TextLexer)  # Pygments has none of that name
    app.add_directive("files", Files)
    app.connect("source-read", complete)
    app.connect("doctree-read", adapt)
    app.connect("build-finished", finish)
