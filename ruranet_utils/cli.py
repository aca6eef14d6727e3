"""The command line: ``ruranet check``, ``segment``, ``cluster``, ``reproduce``, ``audit``, ``data`` and ``store``."""

from __future__ import annotations

import json
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from sys import stderr
from typing import TextIO

import click
import pandas as pd
from pandas.errors import ParserWarning

from ruranet_utils import __version__
from ruranet_utils.data.download import main as data
from ruranet_utils.data.refusal import Unusable
from ruranet_utils.profiles import get_profile
from ruranet_utils.running.reproduce import main as reproduce
from ruranet_utils.storage import paths
from ruranet_utils.storage.machine import prepare_process

max_mask_share = click.option(
    "--max-mask-share",
    default=0.5,
    type=click.FloatRange(0, 1, min_open=True),
    help="Masks that cover a larger share of the field of view are taken to be inverted.",
)
FOUND = ("hard_exudates", "microaneurysms", "hemorrhages", "soft_exudates", "optic_disc", "edema")
GROUPED_BY = ("areas", "kmedoids", "dmh")  # in notebook 09
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and everything else to stderr.")


class Interruptible(click.Group):
    """A command group that exits on Ctrl-C with the usual exit code."""

    def invoke(self, context: click.Context) -> None:
        """Run the subcommand."""
        try:
            super().invoke(context)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            context.exit(130)


@click.group(cls=Interruptible, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def main() -> None:
    """RURANET++, reproduced: lesions and clusters in fundus photographs. Research only, not a medical device.

    Exit codes: 0 success; 1 an error, or a table that cannot be right; 2 invalid arguments; 130 interrupted by Ctrl-C.
    """


main.add_command(reproduce, "reproduce")
main.add_command(data, "data")


@main.command()
@click.argument("images", type=click.Path(path_type=Path, exists=True))
@click.option("--lesion", "lesions", multiple=True, type=click.Choice(FOUND), help="Find only this lesion. Repeatable.")
@click.option(
    "--model", default="shipped", help="This project's network, a profile that has trained one, or a .safetensors file."
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default="found", help="Folder for masks and overlays."
)
@as_json
@click.pass_context
def segment(
    context: click.Context, images: Path, lesions: tuple[str, ...], model: str, out: Path, as_json: bool
) -> None:
    """Find all lesions and the optic disc in a photograph or a folder of them.

    Writes an overlay and one mask per lesion for each photograph, at the photograph's own size, and lesions.csv: the
    number and area of each lesion, in percent of the field of view and in disc areas. Run the same command again to
    resume. A photograph that cannot be read does not stop the others: it is listed at the end, and the exit code is 1.
    """
    from ruranet_utils.segmentation.apply import Finder, photographs, read_rows, segment_into  # loads torch
    from ruranet_utils.storage.progress import progress

    prepare_process(get_profile("open").instructions)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"masks cannot be written: {error}", param_hint="--out") from None
    try:
        finder, files = Finder.of(model, lesions), photographs(images, out)
        found = segment_into(out, files, finder)
        left_out = list(progress(found, total=len(files), desc="segmenting", unit="photograph"))
    except (OSError, Unusable) as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    refused = [problem for problem in left_out if problem]
    if images := [name for name, problem in zip(files, left_out, strict=True) if not problem]:
        _print(read_rows(out, images, finder.lesions), as_json)
    elif as_json:
        click.echo("[]")
    if images:
        click.echo(f"masks, overlays and lesions.csv: {out}", err=True)
    for problem in refused:
        click.echo(f"left out: {problem}", err=True)
    context.exit(int(bool(refused)))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True))
@max_mask_share
@as_json
@click.pass_context
def check(context: click.Context, folder: Path, max_mask_share: float, as_json: bool) -> None:
    """List everything wrong with a folder of photographs, and what will be read from it.

    The folder is laid out as docs/own_images.md describes. Nothing is computed. Exit code 1 if the folder cannot be
    used.
    """
    from ruranet_utils.data.check import check as find

    profile = get_profile("folder", data_dir=str(folder), max_mask_share=max_mask_share)
    checked = find(folder, profile)
    click.echo(json.dumps(checked.as_dict(), indent=1) if as_json else str(checked))
    context.exit(int(not checked.usable))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True))
@click.option(
    "--models",
    default="shipped",
    help="Network that finds the lesions: this project's, or those a profile has trained.",
)
@click.option(
    "--method",
    type=click.Choice(GROUPED_BY),
    default="areas",
    show_default=True,
    help="By the areas of the lesions, or by deep features as in the paper.",
)
@click.option("--seed", default=0, help="Seed for PCA, heads and clustering.")
@max_mask_share
@as_json
@click.pass_context
def cluster(
    context: click.Context,
    folder: Path,
    models: str,
    method: str,
    seed: int,
    max_mask_share: float,
    as_json: bool,
) -> None:
    """Sort a folder of photographs into two groups, one with more lesions and one with fewer (notebook 09).

    The folder is laid out as docs/own_images.md describes; no labels are needed. Prints the photographs, most lesions
    first: the group of each and how certain it is (1: deep in its group; below 0: nearer to the other), the area of
    each lesion, and how much of it lies within a disc diameter of the fovea. If there is a labels.csv, the same number
    of photographs of each class is used.
    """
    parameters = {"data_dir": str(folder), "models": models, "seed": str(seed), "max_mask_share": str(max_mask_share)}
    with redirect_stdout(stderr):
        context.invoke(reproduce, profile="folder", only=("09",), pairs=tuple(parameters.items()))
    results = paths.figures(paths.results(get_profile("folder", data_dir=str(folder))))
    others = [column for other in GROUPED_BY if other != method for column in (other, f"{other} certainty")]
    listed = pd.read_csv(results / "clusters.csv", converters={"image_id": str})  # also 001 and NA are names
    _print(listed.drop(columns=others), as_json)


@main.command()
@click.argument("table", type=click.File())
@click.option(
    "--decimals", type=click.IntRange(min=1), help="Decimals the scores were printed to, if trailing zeros were lost."
)
@click.option(
    "--positive-share",
    default=0.5,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the images in class 1.",
)
@click.option(
    "--max-images",
    default=400,
    type=click.IntRange(min=2),
    help="Largest number of images that may have been scored.",
)
@as_json
@click.pass_context
def audit(
    context: click.Context, table: TextIO, decimals: int, positive_share: float, max_images: int, as_json: bool
) -> None:
    """Can the scores of a published table be true?

    TABLE is a CSV file, or - for stdin. With a column accuracy and any of precision, recall and f1, as fractions of 1,
    this searches for the confusion matrices that round to each row; with a column iou, and accuracy or precision, it
    checks what holds for every mask. Exit code 1 if a row is impossible. For the tables of RURANET++ itself: ruranet
    reproduce --only 07.
    """
    from ruranet_utils.evidence.audit import audit_classification, audit_segmentation
    from ruranet_utils.evidence.grim import SCORES

    try:
        printed = _read(table)
        if "iou" in printed:
            known, tried = ("iou", "accuracy", "precision"), "every number of pixels"
            audited = audit_segmentation(printed, decimals)
        else:
            known, tried = ("accuracy", *SCORES), f"2 to {max_images} images, {positive_share:g} of them in class 1"
            audited = audit_classification(printed, decimals, range(2, max_images + 1), positive_share)
        unknown = [name for name in printed.select_dtypes("number") if name not in known]
        click.echo(f"tried: {tried}; columns not checked: {', '.join(unknown) or 'none'}", err=True)
    except (ValueError, ParserWarning) as error:
        raise click.BadParameter(str(error), param_hint="TABLE") from None
    if not as_json and "sizes" in audited:
        audited["sizes"] = [
            f"{min(found)} to {max(found)}, {len(found)}" if found else "–" for found in audited["sizes"]
        ]
    _print(audited, as_json)
    context.exit(int(audited["verdict"].str.startswith("impossible").any()))


@main.command()
@click.option("--prune", is_flag=True, help="Remove what no run reads anymore.")
@click.option("--networks", is_flag=True, help="With --prune: also remove trained networks; their scores stay.")
@as_json
def store(prune: bool, networks: bool, as_json: bool) -> None:
    """Show how large the store of finished steps is (RURANET_STORE, else data/store), and how much of it is outdated.

    Outdated means an older layout, results from another version of a step or of its libraries, and leftovers of
    interrupted runs. Nothing is removed without --prune.
    """
    from ruranet_utils.running import upkeep

    if networks and not prune:
        raise click.UsageError("--networks needs --prune")
    try:
        if prune:
            click.echo(f"removed: {upkeep.prune(networks):.0f} MB", err=True)
    except OSError as error:
        raise click.ClickException(f"the store cannot be changed: {error}") from None
    _print(upkeep.survey().round(1), as_json)


def _read(table: TextIO) -> pd.DataFrame:
    """Read a table of scores as people write it: spaces after commas, capitals, several spellings of F1."""
    text = table.read()
    head = text.partition("\n")[0]
    if not head.strip() or ("," not in head and (";" in head or "\t" in head)):
        raise ValueError(f"expected a header with commas between the columns, got {head[:60]!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)  # rows longer than the header would be truncated
        printed = pd.read_csv(StringIO(text), skipinitialspace=True, index_col=False)
    printed.columns = printed.columns.str.strip().str.lower().str.replace(r"^f1[ _-]?score$", "f1", regex=True)
    if taken := sorted({"verdict", "sizes", "averages", "matrices"}.intersection(printed)):
        raise ValueError(f"rename the columns {', '.join(taken)}: the audit writes columns with these names")
    return printed


def _print(table: pd.DataFrame, as_json: bool) -> None:
    click.echo(table.to_json(orient="records", indent=1) if as_json else table.to_string(index=False))
