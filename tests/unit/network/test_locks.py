import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.network.locks import remove_table, table_name


def test_the_name_is_cut_as_criu_cuts_it() -> None:
    assert table_name("1b509b98-c4cd-46c7-8d11-0123456789ab") == "CRIU-1b509b98-c4cd-46c7-8d"


@given(st.text(max_size=80))
def test_no_other_text_becomes_a_name(text: str) -> None:
    name = table_name(text)
    assert name == "" or set(name) <= set(
        "CRIU-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )


def test_without_nft_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "nft" in anyio.run(remove_table, "CRIU-x")
