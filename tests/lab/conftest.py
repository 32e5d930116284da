"""One pair of guests for all the tests that do not break them."""

from collections.abc import Iterator

import pytest

from lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two guests with disks of their own; a test leaves both up and the link whole."""
    with Lab(memory_mib=1024, persistent=True, progress=print) as pair:
        yield pair
