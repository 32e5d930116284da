"""Power cuts of either guest, two of them; tests/vm/faults has all, and the link's."""

import pytest

from lab import Lab
from tests.vm.faults.batch import Batch
from tests.vm.faults.cases import Fault, Moment

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

CASES = (
    (Fault.POWER_SRC, Moment.READY),
    (Fault.POWER_DST, Moment.GONE),
)


@pytest.mark.parametrize(("fault", "moment"), CASES)
def test_exactly_one_is_left(lab: Lab, fault: Fault, moment: Moment) -> None:
    found = Batch(lab, fault, [moment]).run()[moment]
    assert not found.wrong, found
