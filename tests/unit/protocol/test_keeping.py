"""What an agent and its keeper say: there and back, within its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import ProtocolError, UsageError
from phaul.protocol import keeping as k
from phaul.protocol.messages import Done, Failed

FOLDERS = st.from_regex(r"[0-9]{1,6}", fullmatch=True)
PAGES = st.integers(0, 1 << 50)
REQUESTS = st.one_of(
    st.builds(k.Add, folder=FOLDERS),
    st.builds(k.Finish, folder=FOLDERS, least=PAGES, most=PAGES, wide=st.booleans()),
    st.builds(k.Guard, pid=st.integers(1, 1 << 22)),
    st.builds(k.Look, wait_ms=st.integers(0, 10_000), release=st.booleans()),
    st.just(k.GiveUp()),
    st.builds(k.Leave, told=st.booleans()),
)
FAILED = Failed(kind="PageStoreError", what="no page", log="x" * 32_768)
ANSWERS = st.one_of(
    st.builds(k.Here, pid=st.integers(1, 1 << 22)),
    st.just(Done()),
    st.builds(k.Counted, pages=PAGES, elsewhere=PAGES, started=st.booleans()),
    st.builds(
        k.Standing,
        stage=st.sampled_from(k.Stage),
        pages=PAGES,
        given=PAGES,
        never_asked=PAGES,
        seconds=st.floats(0, 1e9),
        failure=st.sampled_from((None, FAILED)),
    ),
    st.just(FAILED),
)


@given(REQUESTS)
def test_a_request_there_and_back(request: k.KeeperRequest) -> None:
    assert k.decode_request(k.encode(request)) == request


@given(ANSWERS)
def test_an_answer_there_and_back(answer: k.KeeperAnswer) -> None:
    packet = k.encode(answer)
    assert len(packet) <= k.MAX_PACKET
    assert k.decode_answer(packet) == answer


@pytest.mark.parametrize("folder", ["", "..", "1/..", "/", "x", "1234567", "1\n"])
def test_a_folder_is_no_path(folder: str) -> None:
    with pytest.raises(UsageError):
        k.encode(k.Add(folder=folder))
    with pytest.raises(ProtocolError):
        k.decode_request(b'{"is":"add","folder":"%s"}' % folder.encode())


@given(st.binary(max_size=200))
def test_what_is_no_message_is_refused(packet: bytes) -> None:
    for decode in (k.decode_request, k.decode_answer):
        with pytest.raises(ProtocolError):
            decode(packet)


def test_what_is_too_long_is_not_sent() -> None:
    with pytest.raises(UsageError, match="at most"):
        k.encode(Failed(kind="PhaulError", what="x" * 4096, notes=("\\" * 4096,) * 8))
