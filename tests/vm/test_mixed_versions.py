"""An older CRIU with another page server protocol: it works, but not with a newer one."""

from functools import partial

import pytest

from lab import Lab
from tests.vm.conftest import run_phaul, run_pytest
from tests.vm.subject import Subject

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

TARGET = "root@dst"


def test_other_page_server_protocol_is_refused(mixed: Lab) -> None:
    phaul = partial(run_phaul, mixed.src)
    subject = Subject(mixed.src, "dirtier", "--size-mb", 8)
    checked = phaul("check", TARGET)
    assert checked.status == 5, checked
    line = next(line for line in checked.stdout.splitlines() if "page-server" in line)
    assert line.startswith("no "), checked
    moved = phaul("migrate", subject.pid, TARGET)
    assert moved.status == 5, moved
    moved.says("page-server", f"still running here, PID {subject.pid}", "nothing left on dst")
    subject.only_on(mixed.src, mixed.dst)
    subject.counts_on(mixed.src)
    subject.stop(mixed.src)


def test_older_criu_and_its_images(mixed: Lab) -> None:
    which = "version_features or cpu_of_this_host or dump_held or (survives and dirtier)"
    files = ("tests/engine/test_driver.py", "tests/engine/test_move.py")
    said = run_pytest(mixed.dst, *files, "-k", which)
    assert "4 passed" in said
