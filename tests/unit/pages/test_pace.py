from phaul.pages.pace import Pace

CHUNK = 1 << 18


def learned(sending: float, packing: float, size: int = CHUNK) -> Pace:
    """One that has seen a network and a compression of so many bytes a second."""
    pace = Pace()
    for _ in range(40):
        pace.packed(CHUNK, size, CHUNK / packing)
    for _ in range(40):
        pace.sent(CHUNK, CHUNK / sending, blocked=True)
    return pace


def test_nothing_is_compressed_before_the_network_is_known_to_be_slow() -> None:
    pace = Pace()
    assert not pace.allows(CHUNK, 1 << 30, 0, None)
    pace.sent(CHUNK, 1.0, blocked=False)
    assert not pace.allows(CHUNK, 1 << 30, 0, None)
    pace.sent(CHUNK, 1.0, blocked=True)
    assert pace.allows(CHUNK, 1 << 20, 0, None)


def test_a_slow_network_with_much_to_send_gives_time() -> None:
    pace = learned(sending=125e6, packing=300e6)
    assert pace.allows(CHUNK, 1 << 20, 0, None)
    assert not pace.allows(CHUNK, 0, 0, None), "it would wait for us"


def test_a_fast_link_gives_none() -> None:
    assert not learned(sending=2e9, packing=300e6).allows(CHUNK, 1 << 20, 0, None)


def test_a_slow_compression_takes_too_long() -> None:
    assert not learned(sending=125e6, packing=20e6).allows(CHUNK, 1 << 20, 0, None)


def test_the_limit_gives_time() -> None:
    assert Pace().allows(CHUNK, 0, 0.02, 12.5e6)
    assert not Pace().allows(CHUNK, 0, 0.0001, 12.5e6)


def test_what_gets_much_smaller_is_worth_a_wait() -> None:
    assert learned(sending=125e6, packing=300e6, size=CHUNK // 4).allows(CHUNK, 0, 0, None)
    assert not learned(sending=2e9, packing=300e6, size=CHUNK // 4).allows(CHUNK, 0, 0, None)
    assert learned(sending=2e9, packing=300e6, size=CHUNK // 4).allows(CHUNK, 0, 0, 12.5e6)


def test_the_network_is_looked_at_again() -> None:
    pace = learned(sending=125e6, packing=300e6)
    tries = []
    for _ in range(40):
        tries.append(pace.allows(CHUNK, 1 << 20, 0, None))
        if tries[-1]:
            pace.packed(CHUNK, CHUNK, CHUNK / 300e6)
        else:
            pace.sent(CHUNK, CHUNK / 3e9, blocked=True)
    assert False in tries
    for _ in range(100):
        pace.sent(CHUNK, CHUNK / 3e9, blocked=True)
    assert not pace.allows(CHUNK, 1 << 20, 0, None)
