import threading

from phaul.cli.render.background import Background


def test_all_is_worked_on_in_order() -> None:
    seen: list[object] = []
    background: Background[int] = Background(
        seen.append,
        begin=lambda: seen.append("begin"),
        end=lambda: seen.append("end"),
        name="test",
    )
    for number in range(100):
        background.put(number)
    assert background.close()
    assert seen == ["begin", *range(100), "end"]
    assert background.close()


def test_after_an_error_things_are_dropped_but_the_end_comes() -> None:
    seen: list[object] = []

    def work(number: int) -> None:
        seen.append(number)
        raise BrokenPipeError

    background: Background[int] = Background(work, end=lambda: seen.append("end"), name="test")
    background.put(1)
    background.put(2)
    assert not background.close()
    assert seen == [1, "end"]


def test_one_that_is_stuck_holds_nobody() -> None:
    release, stuck = threading.Event(), threading.Event()

    def work(_: int) -> None:
        stuck.set()
        release.wait(60)

    background: Background[int] = Background(work, name="test")
    background.put(1)
    assert stuck.wait(60)
    for number in range(1000):
        background.put(number)
    assert background.backlog == 1000
    assert not background.close(timeout=0.01)
    release.set()
    assert background.close(timeout=60)


def test_it_idles_meanwhile() -> None:
    idled = threading.Event()
    background: Background[int] = Background(
        lambda _: None, idle=idled.set, every=0.001, name="test"
    )
    assert idled.wait(60)
    assert background.close()
