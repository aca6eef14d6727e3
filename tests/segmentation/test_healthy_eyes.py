"""Shares of photographs in which a lesion is found, by group."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ruranet_utils.segmentation.healthy_eyes import LEAST_PX, SIDE_PX, found_table


def test_a_lesion_is_found_from_twenty_pixels_of_the_usual_size_on():
    rng = np.random.default_rng(0)
    side = SIDE_PX // 4
    masks = np.zeros((30, 2, side, side), bool)
    areas = rng.integers(0, 4, size=(30, 2))
    areas[20:] += 1
    for image, of_image in zip(masks, areas, strict=True):
        for mask, area in zip(image, of_image, strict=True):
            mask.ravel()[:area] = True
    groups = {"healthy": np.arange(30) < 10, "other": (np.arange(30) >= 10) & (np.arange(30) < 20)}
    groups["diseased"] = np.arange(30) >= 20
    table = found_table(masks, ("first", "second"), groups, np.arange(30).astype(str)).set_index("lesion")
    least = LEAST_PX / 16  # pixels at this size
    for number, lesion in enumerate(("first", "second")):
        for name, chosen in groups.items():
            row = table.loc[lesion]
            assert row[name] == pytest.approx((areas[chosen, number] >= least).mean()) and row[f"{name} n"] == 10
            assert row[f"{name} low"] <= row[name] <= row[f"{name} high"]
        compared = groups["healthy"] | groups["diseased"]
        expected = roc_auc_score(groups["diseased"][compared], areas[compared, number])
        assert table.loc[lesion, "auc"] == pytest.approx(expected)
