"""Progress bars, in notebooks and terminals alike, and the journal of a run without either."""

import json
import os

from tqdm.auto import tqdm


def progress(iterable=None, **options) -> tqdm:
    """A bar that disappears when done; ``TQDM_DISABLE=1`` in the environment turns all bars off."""
    return tqdm(iterable, leave=False, disable=bool(os.environ.get("TQDM_DISABLE")), **options)


def note(**event) -> None:
    """Append an event to the run's journal, if it keeps one (``RURANET_JOURNAL``)."""
    journal = os.environ.get("RURANET_JOURNAL")
    if journal:
        with open(journal, "a") as file:
            file.write(json.dumps(event) + "\n")
