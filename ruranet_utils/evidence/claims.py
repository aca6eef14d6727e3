"""What the paper claims about its own numbers, in words; notebook 07 checks it by arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd


class Claim(NamedTuple):
    """A claim that other printed numbers can support or contradict.

    Attributes
    ----------
    text : str
    where : str
        Table or section of the paper.
    comment : str
        What the check means, in one sentence.
    fails : {"impossible", "contradicted"}
        Verdict if the check fails: no set of images can give these numbers, or another printed number says otherwise.
    holds : str
        Verdict if it passes.
    """

    text: str
    where: str
    comment: str
    fails: str = "impossible"
    holds: str = "consistent"


CLAIMS = {
    "tenth": Claim(
        "Table 3 is scored on 10 % of 302 images",
        "Table 3",
        "62 images (31 + 31) would be a hold-out of 20 %.",
    ),
    "one test set": Claim(
        "Table 3 is scored on one test set",
        "Table 3",
        "62 and its multiples fit all six rows; with 62 every confusion matrix is the only one.",
    ),
    "same images, methods": Claim(
        "The four methods are scored on the same images",
        "Table 4",
        "DMH was scored on 302 images, the others on 150 or 300.",
    ),
    "same images, variants": Claim(
        "The five variants are scored on the same images",
        "Table 5",
        "The steps from b and c to d compare different images.",
    ),
    "one average": Claim(
        "All precisions, recalls and F1 are averaged alike",
        "Tables 4 and 5",
        "Agglomerative precision, recall and F1 are two thirds of a two-class average; those of 5a are of one class.",
    ),
    "one clustering": Claim(
        "Every row of Table 4 is the result of one clustering",
        "Table 4",
        "In each of these two rows at least one number is not what it says.",
    ),
    "302 images": Claim(
        "DMH + GoogLeNet is a result on 302 images",
        "Tables 4 and 5, abstract",
        "The two matrices differ in which class is called positive.",
    ),
    "edema": Claim(
        "Edema: IoU 0.9925, accuracy 0.9867",
        "Table 2",
        "They cannot be of the same pixels.",
    ),
    "maximum": Claim(
        "The maximum accuracy is 0.8411, of DMH",
        "Abstract, Section 3.3",
        "On the same backbone plain k-medoids is printed as the better one.",
        "contradicted",
    ),
    "each component": Claim(
        "Each component improves the result",
        "Table 5",
        "The last step, DMH, lowers it.",
        "contradicted",
    ),
    "Davies-Bouldin": Claim(
        "Segmentation improves the Davies-Bouldin index",
        "Section 3.4",
        "It grows more than sixfold.",
        "contradicted",
    ),
    "running text": Claim(
        "The numbers of the text follow from the others",
        "Sections 2.2, 3.1, 3.4",
        "+2.38 % is 2.00 percentage points; the reconstruction error is 1 minus the variance ratio.",
        "contradicted",
        "only as relative changes",
    ),
    "best encoder": Claim(
        "Table 2 takes the best encoder of Table 1",
        "Tables 1 and 2",
        "For both lesions that Table 1 shows.",
    ),
}


def judge(checks: Mapping[str, tuple[str, bool]]) -> pd.DataFrame:
    """Verdicts of all claims.

    Parameters
    ----------
    checks : mapping of str to (str, bool)
        By key of ``CLAIMS``: what was computed, and whether the claim agrees with it.

    Returns
    -------
    DataFrame
        ``claim``, ``where``, ``check``, ``verdict``, ``in one sentence``.

    Raises
    ------
    KeyError
        If a claim was not checked.
    """
    rows = []
    for key, claim in CLAIMS.items():
        check, agrees = checks[key]
        verdict = claim.holds if agrees else claim.fails
        rows.append([claim.text, claim.where, check, verdict, claim.comment])
    return pd.DataFrame(rows, columns=["claim", "where", "check", "verdict", "in one sentence"])
