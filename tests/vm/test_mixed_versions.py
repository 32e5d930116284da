"""An older CRIU with another page server protocol: it works, but not with a newer one."""

import pytest

from lab import Lab
from tests.vm.conftest import ADDRESS, Subject, left_behind, run_pytest, wait_listening
from tools.guests import ENVIRONMENT

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


def test_other_page_server_protocol_is_refused(mixed: Lab) -> None:
    subject = Subject(mixed.src, "dirtier", "--size-mb", 8)
    module = ["python3", "-m", "examples.two_machines"]
    serve = [*module, "serve", ADDRESS, "/root/images"]
    with mixed.dst.spawn(serve, env=ENVIRONMENT):
        wait_listening(mixed.dst)
        result = mixed.src.run(
            [*module, "move", str(subject.pid), ADDRESS, "/root/images"],
            env=ENVIRONMENT,
            timeout=120,
        )
    said = result.stderr.decode()
    assert "the page server protocols of criu 4.2.1 here and 4.1.1 there differ" in said
    assert subject.check(mixed.src)["ok"]
    assert left_behind(mixed.src) == left_behind(mixed.dst) == ""
    subject.stop(mixed.src)


def test_older_criu_and_its_images(mixed: Lab) -> None:
    which = "version_features or cpu or dump_held or (survives and dirtier)"
    said = run_pytest(mixed.dst, "tests/engine", "-k", which)
    assert "4 passed" in said
