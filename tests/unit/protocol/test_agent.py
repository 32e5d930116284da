"""The conversation, by a machine that tries every step in every state."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from phaul.errors import ProtocolError
from phaul.protocol import messages as m
from phaul.protocol.agent import Conversation, State
from phaul.protocol.settlement import Copy
from tests.unit.protocol.samples import ANSWERS, FACTS, HELLO, KEY, PREPARE, REQUESTS, TOKEN

WELCOME = m.Welcome(version=1, facts=FACTS, token=TOKEN)
FAILED = m.Failed(kind="PhaulError", what="no")


def walk(conversation: Conversation, *steps: m.Message | int) -> Conversation:
    """Take the steps; a number is a chunk of so many bytes."""
    for step in steps:
        if isinstance(step, int):
            conversation.chunk(step)
        elif isinstance(step, m.Answer):
            conversation.answer(step)
        else:
            conversation.request(step)
    return conversation


DONE = m.Done()
GREETED = (HELLO, WELCOME)
READY = (*GREETED, PREPARE, DONE)
ROUND = (*READY, m.StartRound(number=0), DONE)
WRITTEN = (*ROUND, m.StopRound(number=0), DONE)
LOADING = (*WRITTEN, m.Image(name="a.img", size=10), 4, 6, m.Image(name="b.img", size=0))
HELD = (*LOADING, m.Restore(images=2), m.Ready(pid=7))
RUNNING = (*HELD, m.Commit(), m.Running())
DRAINING = m.Draining(pages=2, given=1, seconds=0.5, over=False)
ASK = m.Ask(key=KEY)
STANDING = m.Standing(copy=Copy.IMAGES)
SETTLING = (*GREETED, ASK, STANDING)


def test_a_whole_migration() -> None:
    conversation = walk(Conversation(), *RUNNING, m.Bye(), DONE)
    assert conversation.state is State.ENDED
    assert conversation.legal() == ()


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ((), State.NEW),
        (GREETED, State.GREETED),
        (READY, State.READY),
        (ROUND, State.ROUND),
        (LOADING, State.LOADING),
        ((*LOADING, m.Restore(images=2)), State.LOADING),
        ((*READY, m.Follow(), DONE, m.Image(name="a.img", size=0)), State.LOADING),
        ((*WRITTEN, m.Follow(), DONE), State.LOADING),
        ((*READY, m.Follow(), FAILED), State.SPENT),
        ((*SETTLING, m.Attach(), DONE, m.Drain(), DRAINING), State.SETTLING),
        ((*SETTLING, m.Attach(), FAILED), State.SETTLING),
        (HELD, State.HELD),
        ((*HELD, m.Commit()), State.HELD),
        ((*HELD, m.Discard()), State.HELD),
        ((*HELD, m.Discard(), DONE), State.SPENT),
        (RUNNING, State.RUNNING),
        ((*RUNNING, m.Drain(), DRAINING, m.Drain(), FAILED), State.RUNNING),
        ((*RUNNING, m.Abandon(), DONE, m.Drain(), DRAINING), State.RUNNING),
        ((*HELD, m.Commit(), FAILED), State.DOUBTFUL),
        ((*HELD, m.Discard(), FAILED), State.DOUBTFUL),
        ((*GREETED, m.Discard(), FAILED), State.SPENT),
        ((HELLO, FAILED), State.ENDED),
        ((*GREETED, PREPARE, FAILED), State.GREETED),
        ((*READY, m.StartRound(number=0), FAILED), State.SPENT),
        ((*ROUND, m.StopRound(number=0), FAILED), State.SPENT),
        ((*LOADING, m.Restore(images=2), FAILED), State.SPENT),
        ((*ROUND, m.Discard(), DONE), State.SPENT),
        ((*RUNNING, m.Bye()), State.RUNNING),
        ((*RUNNING, m.Bye(), DONE), State.ENDED),
        ((*RUNNING, m.Bye(), FAILED), State.ENDED),
        ((*HELD, m.Commit(), FAILED, m.Bye(), DONE), State.ENDED),
        ((*READY, m.Bye(), DONE), State.ENDED),
        (SETTLING, State.SETTLING),
        ((*GREETED, ASK, FAILED), State.GREETED),
        ((*SETTLING, ASK, STANDING), State.SETTLING),
        ((*SETTLING, ASK, FAILED), State.SETTLING),
        ((*SETTLING, m.Recover(), m.Ready(pid=7)), State.SETTLING),
        ((*SETTLING, m.Recover(), FAILED), State.SETTLING),
        ((*SETTLING, m.Commit(), m.Running(), m.Commit(), m.Running()), State.SETTLING),
        ((*SETTLING, m.Commit(), FAILED, ASK, STANDING), State.SETTLING),
        ((*SETTLING, m.Discard(), DONE), State.SETTLING),
        ((*SETTLING, m.Bye(), DONE), State.ENDED),
        ((*SETTLING, m.Bye(), FAILED), State.ENDED),
    ],
)
def test_where_steps_lead(steps: tuple[m.Message | int, ...], state: State) -> None:
    assert walk(Conversation(), *steps).state is state


@pytest.mark.parametrize(
    ("steps", "wrong", "says"),
    [
        ((), PREPARE, "out of turn"),
        ((), DONE, "nothing was asked"),
        ((HELLO,), PREPARE, "Hello is not answered"),
        ((HELLO,), DONE, "Done is no answer to Hello"),
        (GREETED, m.StartRound(number=0), "out of turn"),
        (READY, m.Image(name="a.img", size=1), "out of turn"),
        (READY, m.StartRound(number=1), "0 is next"),
        (READY, m.Restore(images=1), "out of turn"),
        (ROUND, m.Follow(), "out of turn"),
        (LOADING, m.Follow(), "out of turn"),
        ((*READY, m.Follow(), DONE), m.StartRound(number=0), "out of turn"),
        (RUNNING, m.Attach(), "out of turn"),
        (ROUND, m.StopRound(number=1), "0 is under way"),
        (ROUND, m.StartRound(number=1), "out of turn"),
        (WRITTEN, m.StartRound(number=0), "1 is next"),
        (WRITTEN, 1, "lacks 0"),
        ((*WRITTEN, m.Image(name="a.img", size=10)), m.Restore(images=1), "lacks 10 bytes"),
        ((*WRITTEN, m.Image(name="a.img", size=10)), 11, "lacks 10"),
        ((*WRITTEN, m.Image(name="a.img", size=10)), 0, "lacks 10"),
        (LOADING, m.Image(name="a.img", size=1), "sent twice"),
        (LOADING, m.Restore(images=3), "2 were sent"),
        (LOADING, m.StartRound(number=1), "out of turn"),
        (HELD, m.Bye(), "held"),
        (HELD, m.Restore(images=2), "out of turn"),
        (RUNNING, m.Discard(), "out of turn"),
        (RUNNING, ASK, "out of turn"),
        (HELD, ASK, "out of turn"),
        (HELD, m.Abandon(), "out of turn"),
        ((*HELD, m.Commit()), DONE, "Done is no answer to Commit"),
        (GREETED, m.Commit(), "out of turn"),
        (GREETED, m.Recover(), "out of turn"),
        (SETTLING, PREPARE, "out of turn"),
        (SETTLING, m.Restore(images=1), "out of turn"),
        ((*SETTLING, m.Recover()), STANDING, "Standing is no answer to Recover"),
        ((*GREETED, ASK), m.Running(), "Running is no answer to Ask"),
        (RUNNING, m.Commit(), "out of turn"),
        ((*HELD, m.Commit(), FAILED), m.Discard(), "doubtful"),
    ],
)
def test_steps_out_of_turn(
    steps: tuple[m.Message | int, ...], wrong: m.Message | int, says: str
) -> None:
    conversation = walk(Conversation(), *steps)
    state, asked = conversation.state, conversation.asked
    with pytest.raises(ProtocolError, match=says):
        walk(conversation, wrong)
    assert (conversation.state, conversation.asked) == (state, asked)


class Machine(RuleBasedStateMachine):
    """Sends anything at any time, and follows by itself what was decided about the copy."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation()
        self.images = 0
        self.held = False
        self.decided = False

    @rule(request=st.sampled_from(REQUESTS), name=st.integers(0, 5), size=st.integers(0, 9))
    def ask(self, request: m.Request, name: int, size: int) -> None:
        talk = self.conversation
        if isinstance(request, m.Image):
            request = m.Image(name=f"x-{name}.img", size=size)
        if isinstance(request, m.Restore):
            request = m.Restore(images=max(self.images, 1))
        if isinstance(request, m.StartRound | m.StopRound):
            request = type(request)(number=talk.rounds)
        before = (talk.state, talk.asked, talk.image_left, talk.rounds)
        legal = type(request) in talk.legal() or isinstance(request, m.Alive)
        try:
            talk.request(request)
        except ProtocolError:
            assert not legal or isinstance(request, m.Image)  # its name may be a second one
            assert (talk.state, talk.asked, talk.image_left, talk.rounds) == before
        else:
            assert legal
            self.images += isinstance(request, m.Image)
            self.decided |= isinstance(request, m.Commit | m.Discard)

    @rule(answer=st.sampled_from(ANSWERS))
    def answer(self, answer: m.Answer) -> None:
        asked = self.conversation.asked
        try:
            self.conversation.answer(answer)
        except ProtocolError:
            assert self.conversation.asked is asked
            return
        if isinstance(answer, m.Alive):
            return
        assert asked is not None
        if isinstance(asked, m.Restore) and isinstance(answer, m.Ready):
            self.held = True

    @precondition(lambda self: self.conversation.asked is not None)
    @rule()
    def answer_well(self) -> None:
        well: dict[type, m.Answer] = {
            m.Hello: WELCOME,
            m.Restore: m.Ready(pid=7),
            m.Commit: m.Running(),
            m.Ask: STANDING,
            m.Recover: m.Ready(pid=7),
            m.Follow: DONE,
            m.Attach: DONE,
            m.Abandon: DONE,
        }
        self.answer(well.get(type(self.conversation.asked), DONE))

    @precondition(lambda self: self.conversation.legal())
    @rule(data=st.data())
    def ask_well(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(self.conversation.legal()))
        request = next(sample for sample in REQUESTS if type(sample) is kind)
        self.ask(request, self.images, 3)

    @rule(size=st.integers(0, 9))
    def chunk(self, size: int) -> None:
        left = self.conversation.image_left
        try:
            self.conversation.chunk(size)
        except ProtocolError:
            assert size == 0 or size > left
        else:
            assert self.conversation.image_left == left - size

    @invariant()
    def a_copy_that_is_held_needs_a_decision_before_goodbye(self) -> None:
        talk = self.conversation
        if self.held and not self.decided:
            assert set(talk.legal()) <= {m.Commit, m.Discard}

    @invariant()
    def a_copy_is_let_go_at_most_once_and_never_after_it_was_discarded(self) -> None:
        talk = self.conversation
        if self.decided and talk.state is not State.SETTLING:
            assert m.Commit not in talk.legal()

    @invariant()
    def an_image_is_all_that_is_heard_while_it_is_sent(self) -> None:
        assert not (self.conversation.image_left and self.conversation.legal())


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
