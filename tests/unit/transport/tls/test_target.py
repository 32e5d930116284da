import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.errors import UsageError
from phaul.transport.tls.target import DEFAULT_PORT, Address, TlsTarget, is_name


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("phaul://host2", TlsTarget("host2", Address("host2", DEFAULT_PORT))),
        ("phaul://host2/", TlsTarget("host2", Address("host2", DEFAULT_PORT))),
        ("phaul://host2:99", TlsTarget("", Address("host2", 99))),
        ("phaul://10.0.0.7", TlsTarget("10.0.0.7", Address("10.0.0.7", DEFAULT_PORT))),
        ("phaul://[::1]:99", TlsTarget("", Address("::1", 99))),
        ("phaul://[fe80::1%eth0]", TlsTarget("", Address("fe80::1%eth0", DEFAULT_PORT))),
    ],
)
def test_targets(text: str, target: TlsTarget) -> None:
    assert TlsTarget.matches(text)
    assert TlsTarget.parse(text) == target
    assert TlsTarget.parse(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "host2",
        "phaul://",
        "phaul:///",
        "phaul://user@host",
        "phaul://host:0",
        "phaul://host:65536",
        "phaul://host:x",
        "phaul://host/path",
        "phaul://-host",
        "phaul://a b",
        "phaul://host\n",
        "phaul://host//",
        "phaul://" + "h" * 300,
        "ssh://host",
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        TlsTarget.parse(text)
    assert caught.value.remedy
    assert str(caught.value).isascii()


@settings(deadline=None)
@given(st.text(st.sampled_from("ab1.-:[]%/@ \n\0"), max_size=20))
def test_addresses(text: str) -> None:
    try:
        address = Address.parse(text)
    except UsageError:
        return
    assert Address.parse(str(address)) == address
    assert 1 <= address.port <= 65535
    assert not set(address.host) & set("/@ \n\0[]")


@settings(deadline=None)
@given(st.text(max_size=80))
def test_a_name_leaves_no_directory(text: str) -> None:
    if is_name(text):
        assert "/" not in text
        assert not text.startswith(".")
        assert text.isascii()
        assert len(text) < 64
