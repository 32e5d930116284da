import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from phaul.criu import identity as identity_module
from phaul.criu.identity import identify

PYTHON = str(Path(sys.executable).resolve())


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "criu"
    shutil.copy("/bin/true", path)
    return path


def test_it_stays_the_same(binary: Path) -> None:
    found = identify([str(binary)])
    assert found is not None
    assert found == identify([str(binary)])
    seen = []
    thread = threading.Thread(target=lambda: seen.append(identify([str(binary)])))
    thread.start()
    thread.join()
    assert seen == [found]


def test_it_follows_links(binary: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copy("/bin/false", other)
    link = tmp_path / "link"
    link.symlink_to(binary)
    before = identify([str(link)])
    link.unlink()
    link.symlink_to(other)
    assert before != identify([str(link)])


def test_it_changes_with_the_file(binary: Path) -> None:
    first = identify([str(binary)])
    os.utime(binary, ns=(1, 1))
    second = identify([str(binary)])
    copy = binary.with_name("copy")
    shutil.copy2(binary, copy)
    copy.replace(binary)
    assert len({first, second, identify([str(binary)])}) == 3


def test_it_is_found_by_the_path(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(binary.parent))
    found = identify(["criu"])
    assert found is not None
    assert str(binary) in repr(found)


def test_each_word_counts(binary: Path) -> None:
    words = [[PYTHON, str(binary)], [PYTHON, "-v", str(binary)], [str(binary)]]
    assert len({identify(command) for command in words}) == 3


def test_it_is_not_told_of_what_may_start_anything(binary: Path) -> None:
    binary.write_text("#!/bin/sh\nexec criu\n")
    assert identify([str(binary)]) is None
    assert identify(["/no/criu"]) is None
    assert identify([PYTHON, "/no/criu"]) is None


def test_it_changes_with_the_capabilities(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = identify([str(binary)])
    monkeypatch.setattr(identity_module, "_capabilities", lambda: "CapEff: 0")
    assert identify([str(binary)]) != first


def test_it_changes_with_a_namespace(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = identify([str(binary)])
    monkeypatch.setattr(identity_module, "_NAMESPACES", ("mnt", "net", "pid", "uts"))
    assert identify([str(binary)]) != first
