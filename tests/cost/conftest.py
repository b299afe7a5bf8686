"""What tests of cost share: the collector looks at what a request makes alone, as in a server that has started."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def freeze_what_is_known(known: object) -> Iterator[None]:
    """Without it a full collection over the definitions falls into the larger of two requests, not into the smaller."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
