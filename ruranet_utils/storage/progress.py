"""Progress bars, in notebooks and terminals alike."""

import os

from tqdm.auto import tqdm


def progress(iterable=None, **options) -> tqdm:
    """A bar that disappears when done; ``TQDM_DISABLE=1`` in the environment turns all bars off."""
    return tqdm(iterable, leave=False, disable=bool(os.environ.get("TQDM_DISABLE")), **options)
