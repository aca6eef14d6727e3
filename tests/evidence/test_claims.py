"""What the paper claims of its numbers, and the verdicts."""

import pytest

from ruranet_utils.evidence.claims import CLAIMS, judge


def test_a_verdict_follows_its_check():
    checks = {key: (f"check of {key}", number % 2 == 0) for number, key in enumerate(CLAIMS)}
    table = judge(dict(reversed(checks.items())))
    for (key, claim), row in zip(CLAIMS.items(), table.itertuples(), strict=True):
        check, agrees = checks[key]
        assert (row.claim, row.check) == (claim.text, check)
        assert row.verdict == (claim.holds if agrees else claim.fails)
    assert {"consistent", "impossible", "contradicted"} <= set(table["verdict"])


def test_a_claim_that_was_not_checked_has_no_verdict():
    with pytest.raises(KeyError, match="tenth"):
        judge({})
