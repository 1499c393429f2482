"""`xml_pipeline.message_bus.thread_registry`: frames, conversations, and the counters that decide when they end."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from xml_pipeline.errors import ForgedMessage
from xml_pipeline.message_bus.dead_letters import DeadLetters
from xml_pipeline.message_bus.events import EventHub
from xml_pipeline.message_bus.ledger import Ledger
from xml_pipeline.message_bus.listener import make_listener
from xml_pipeline.message_bus.message_state import MessageState, Outcome
from xml_pipeline.message_bus.mint import Mint
from xml_pipeline.message_bus.scheduler import Scheduler
from xml_pipeline.message_bus.thread_registry import (
    Conversation,
    Frame,
    FrameState,
    ThreadRegistry,
    get_registry,
    reset_registry,
)
from xml_pipeline.runtime import Runtime, use_runtime

from .helpers import Ask, echo

CHOSEN = "0b1d3c7e-6f0a-4f3b-9d0e-1c2b3a4d5e6f"
TOOL = make_listener("tool", echo, Ask)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def canonical(thread_id: str) -> bool:
    return str(uuid.UUID(thread_id)) == thread_id and uuid.UUID(thread_id).version == 4


# --- the documented interface -----------------------------------------------------------------------------------------


def test_a_registry_starts_with_its_root() -> None:
    registry = ThreadRegistry()
    assert (registry.root_uuid, registry.root_chain) == (None, "system")
    root = registry.initialize_root("test-organism")
    assert canonical(root)
    assert registry.initialize_root("another") == registry.root_uuid == root
    assert registry.root_chain == registry.debug_dump()[root] == "system.test-organism"


def test_extending_always_opens_a_new_frame_below() -> None:
    registry = ThreadRegistry()
    thread = registry.register_thread(CHOSEN, "console", "agent")
    assert thread == CHOSEN
    first, second = (registry.extend_chain(CHOSEN, "tool") for _ in range(2))
    assert first != second
    assert canonical(first)
    record = registry.lookup(first)
    assert record is not None
    assert (record.parent_id, record.conversation_id, record.caller, record.callee) == (CHOSEN, CHOSEN, "agent", "tool")
    assert record.depth == 2
    assert registry.debug_dump()[first] == "console.agent.tool"


@pytest.mark.parametrize("name", ["calc.add", "system.sequence", "a b", "<&>", "日本"])
def test_pruning_gives_the_callers_name_and_frame_whatever_it_is_called(name: str) -> None:
    registry = ThreadRegistry()
    registry.register_thread(CHOSEN, "console", name)
    child = registry.extend_chain(CHOSEN, f"{name}.tool")
    assert registry.prune_for_response(child) == (name, CHOSEN)
    assert registry.lookup(child) is None
    assert registry.prune_for_response(child) == (None, None)
    assert registry.prune_for_response(CHOSEN) == (None, None)


def test_a_chain_is_for_people_and_names_are_never_found_by_it() -> None:
    registry = ThreadRegistry()
    one = registry.register_thread(str(uuid.uuid4()), "a.b", "c")
    two = registry.register_thread(str(uuid.uuid4()), "a", "b.c")
    assert registry.debug_dump()[one] == registry.debug_dump()[two] == "a.b.c"
    assert one != two


def test_registering_an_open_frame_again_changes_nothing() -> None:
    registry = ThreadRegistry()
    registry.register_thread(CHOSEN, "console", "agent")
    assert registry.register_thread(CHOSEN, "console", "agent") == CHOSEN
    assert registry.open_frames == 1


def test_extending_what_is_not_open_is_an_error() -> None:
    registry = ThreadRegistry()
    with pytest.raises(KeyError):
        registry.extend_chain(CHOSEN, "tool")
    with pytest.raises(KeyError):
        registry.hold(CHOSEN)


def test_cleanup_forgets_a_frame_and_its_conversation_with_the_last() -> None:
    forgotten: list[str] = []
    registry = ThreadRegistry()
    registry.on_forget = forgotten.append
    registry.register_thread(CHOSEN, "console", "agent")
    child = registry.extend_chain(CHOSEN, "tool")
    registry.cleanup(child)
    assert (registry.lookup(child), forgotten) == (None, [])
    registry.cleanup(CHOSEN)
    assert registry.lookup(CHOSEN) is None
    assert forgotten == [CHOSEN]
    registry.cleanup(CHOSEN)
    assert registry.open_conversations == registry.open_frames == 0


def test_the_dump_is_a_copy() -> None:
    registry = ThreadRegistry()
    registry.register_thread(CHOSEN, "console", "agent")
    registry.debug_dump().clear()
    assert registry.debug_dump() == {CHOSEN: "console.agent"}


def test_the_accessor_gives_the_current_runtimes_registry() -> None:
    with use_runtime(Runtime("one")):
        mine = get_registry()
        mine.register_thread(CHOSEN, "console", "agent")
        with use_runtime(Runtime("two")):
            assert get_registry() is not mine
            assert get_registry().lookup(CHOSEN) is None
        assert get_registry() is mine
        reset_registry()
        assert mine.lookup(CHOSEN) is None


# --- conversations ----------------------------------------------------------------------------------------------------


def test_only_its_owner_continues_a_conversation() -> None:
    registry = ThreadRegistry()
    conversation = registry.begin("ann")
    assert registry.begin("ann", conversation.id) is conversation
    with pytest.raises(ForgedMessage):
        registry.begin("bob", conversation.id)


def test_a_refused_sender_changes_nothing_about_a_complete_conversation() -> None:
    registry = ThreadRegistry()
    conversation = registry.begin("ann")
    registry.retire(conversation)
    with pytest.raises(ForgedMessage):
        registry.begin("bob", conversation.id)
    assert (registry.open_conversations, registry.retained_conversations) == (0, 1)
    assert registry.begin("ann", conversation.id) is conversation


def test_an_inner_frames_id_begins_nothing() -> None:
    registry = ThreadRegistry()
    registry.register_thread(CHOSEN, "ann", "agent")
    child = registry.extend_chain(CHOSEN, "tool")
    with pytest.raises(ForgedMessage):
        registry.begin("ann", child)


def test_complete_conversations_are_remembered_for_their_time_and_up_to_the_limit() -> None:
    clock, forgotten = Clock(), list[str]()
    registry = ThreadRegistry(thread_idle_ttl=10.0, max_threads=2, clock=clock)
    registry.on_forget = forgotten.append
    ids = []
    for _ in range(3):
        conversation = registry.begin("ann")
        ids.append(conversation.id)
        registry.retire(conversation)
        clock.now += 1.0
    assert forgotten == ids[:1]
    assert registry.find(ids[0]) is None
    assert registry.find(ids[2]) is not None
    assert registry.expire() == pytest.approx(8.0)
    clock.now += 8.0
    assert registry.find(ids[1]) is None  # its time is over, though nobody has swept yet
    assert registry.expire() == pytest.approx(1.0)
    clock.now += 1.0
    assert registry.expire() is None
    assert forgotten == ids
    assert registry.retained_conversations == 0


def test_an_id_whose_time_is_over_can_be_used_by_somebody_else() -> None:
    clock = Clock()
    registry = ThreadRegistry(thread_idle_ttl=10.0, clock=clock)
    registry.retire(registry.begin("ann", CHOSEN))
    clock.now += 10.0
    assert registry.begin("bob", CHOSEN).owner == "bob"
    registry.expire()
    conversation = registry.find(CHOSEN)
    assert conversation is not None
    assert conversation.owner == "bob"


def test_open_conversations_are_never_evicted() -> None:
    registry = ThreadRegistry(max_threads=1)
    open_ = [registry.begin("ann") for _ in range(10)]
    for _ in range(10):
        registry.retire(registry.begin("ann"))
    assert registry.open_conversations == 10
    assert all(registry.find(conversation.id) is conversation for conversation in open_)


def test_a_hold_counts_until_it_is_released_once() -> None:
    released: list[Frame] = []
    registry = ThreadRegistry()
    registry.on_hold_released = released.append
    registry.register_thread(CHOSEN, "ann", "agent")
    frame = registry.frame(CHOSEN)
    assert frame is not None
    first, second = registry.hold(CHOSEN, "a"), registry.hold(CHOSEN, "b")
    assert (frame.holds, frame.conversation.holds, frame.is_idle) == (2, 2, False)
    first.release()
    first.release()
    assert (frame.holds, frame.conversation.holds) == (1, 1)
    with second:
        pass
    assert (frame.holds, frame.conversation.holds, frame.is_idle) == (0, 0, True)
    assert released == [frame, frame]


def test_closing_a_frame_gives_its_holds_back() -> None:
    registry = ThreadRegistry()
    registry.register_thread(CHOSEN, "ann", "agent")
    frame = registry.frame(CHOSEN)
    assert frame is not None
    hold = registry.hold(CHOSEN)
    registry.close(frame, FrameState.CANCELLED)
    assert frame.conversation.holds == 0
    hold.release()
    assert frame.conversation.holds == 0


def test_a_delegation_takes_over_caller_tag_and_name_one_hop_deeper() -> None:
    registry = ThreadRegistry()
    root = registry.open_root(registry.begin("ann"), "agent")
    called = registry.open_child(root, TOOL, "agent", "tag", True)
    heir = registry.hand_over(called, make_listener("back", echo, Ask))
    assert (heir.parent, heir.caller, heir.tag, heir.expect_answer) == (root, "agent", "tag", True)
    assert (heir.callee, heir.alias, heir.depth) == ("back", "tool", called.depth + 1)
    assert root.open_children == 2
    registry.close(called, FrameState.ENDED)
    assert root.open_children == 1


# --- the counters, under any sequence of operations -------------------------------------------------------------------


class Registry(RuleBasedStateMachine):
    """Compares the registry's counters with what a scan over all frames finds."""

    conversations = Bundle("conversations")
    frames = Bundle("frames")

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.forgotten: list[str] = []
        self.registry = ThreadRegistry(thread_idle_ttl=100.0, max_threads=3, clock=self.clock)
        self.registry.on_forget = self.forgotten.append
        self.open: dict[str, Frame] = {}
        self.begun: dict[str, Conversation] = {}
        self.retired: dict[str, float] = {}
        self.ids: set[str] = set()

    @rule(target=conversations, owner=st.sampled_from(["ann", "bob"]))
    def begin(self, owner: str) -> Conversation:
        conversation = self.registry.begin(owner)
        assert conversation.id not in self.ids
        self.ids.add(conversation.id)
        self.begun[conversation.id] = conversation
        return conversation

    @rule(target=frames, conversation=conversations)
    def open_root(self, conversation: Conversation) -> Frame | None:
        if not conversation.open:
            return None
        frame = self.registry.open_root(conversation, "agent")
        conversation.participants += ("agent",)
        return self._opened(frame)

    @rule(target=frames, parent=frames)
    def open_child(self, parent: Frame | None) -> Frame | None:
        if parent is None or parent.id not in self.open:
            return None
        return self._opened(self.registry.open_child(parent, TOOL, parent.callee))

    @rule(target=frames, frame=frames)
    def hand_over(self, frame: Frame | None) -> Frame | None:
        if frame is None or frame.id not in self.open:
            return None
        heir = self._opened(self.registry.hand_over(frame, TOOL))
        self._close(frame, FrameState.ENDED)
        return heir

    @rule(frame=consumes(frames), state=st.sampled_from([FrameState.ENDED, FrameState.CANCELLED]))
    def close(self, frame: Frame | None, state: FrameState) -> None:
        if frame is not None:
            self._close(frame, state)
            self._close(frame, FrameState.ENDED)  # a second time changes nothing

    @rule(frame=frames)
    def hold_and_release(self, frame: Frame | None) -> None:
        if frame is not None and frame.id in self.open:
            hold = self.registry.hold(frame.id)
            assert not frame.is_idle
            hold.release()

    @rule(conversation=conversations)
    def retire(self, conversation: Conversation) -> None:
        if conversation.open and not conversation.frames:
            self.registry.retire(conversation)
            del self.begun[conversation.id]
            self.retired[conversation.id] = self.clock.now

    @rule(conversation=conversations, owner=st.sampled_from(["ann", "bob"]))
    def continue_(self, conversation: Conversation, owner: str) -> None:
        known = conversation.id in self.begun or conversation.id in self.retired
        if not known:
            return
        if owner != conversation.owner:
            with pytest.raises(ForgedMessage):
                self.registry.begin(owner, conversation.id)
            return
        assert self.registry.begin(owner, conversation.id) is conversation
        self.retired.pop(conversation.id, None)
        self.begun[conversation.id] = conversation

    @rule(seconds=st.floats(1, 60))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.registry.expire()

    @invariant()
    @precondition(lambda self: hasattr(self, "registry"))
    def counters_are_what_a_scan_finds(self) -> None:
        gone = {id_ for id_ in self.forgotten if id_ in self.retired}
        for id_ in gone:
            del self.retired[id_]
        registry = self.registry
        assert registry.open_frames == len(self.open)
        assert registry.open_conversations == len(self.begun)
        assert registry.retained_conversations == len(self.retired) <= 3
        assert all(since + 100.0 > self.clock.now for since in self.retired.values())
        for frame in self.open.values():
            children = [other for other in self.open.values() if other.parent is frame]
            assert frame.open_children == len(children)
            assert registry.frame(frame.id) is frame
            assert registry.lookup(frame.id) is not None
            assert frame in frame.conversation.frames
            assert frame.is_below(frame)
        for conversation in self.begun.values():
            mine = {frame for frame in self.open.values() if frame.conversation is conversation}
            assert conversation.frames == mine
            assert conversation.holds == 0
            assert registry.find(conversation.id) is conversation

    def _opened(self, frame: Frame) -> Frame:
        assert frame.id not in self.open
        assert canonical(frame.id)
        self.open[frame.id] = frame
        return frame

    def _close(self, frame: Frame, state: FrameState) -> None:
        was = frame.state
        self.registry.close(frame, state)
        assert frame.state is (state if was is FrameState.OPEN else was)
        self.open.pop(frame.id, None)


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class Books(RuleBasedStateMachine):
    """Messages made and finished by hand: the books balance at every moment, and completion comes exactly once."""

    messages = Bundle("messages")

    @initialize()
    def start(self) -> None:
        self.registry = ThreadRegistry()
        self.mint = Mint("run")
        scheduler = Scheduler(
            max_queue=10, max_queue_per_listener=10, max_inside=10, depth_first=False, window_of=lambda target: 10
        )
        self.ledger = Ledger(self.registry, self.mint, scheduler, EventHub(), DeadLetters())
        self.idle = 0
        self.completed: list[str] = []
        self.ledger.on_idle = self._idle
        self.ledger.on_complete = [lambda conversation: self.completed.append(conversation.id)]
        self.live: dict[str, list[MessageState]] = {}
        self.made = 0

    def _idle(self) -> None:
        assert self.mint.in_flight == 0
        self.idle += 1

    def _made(self, state: MessageState) -> MessageState:
        self.made += 1
        assert state.number == self.made
        assert state.conversation is not None
        self.live.setdefault(state.conversation.id, []).append(state)
        return state

    @rule(target=messages)
    def external(self) -> MessageState:
        conversation = self.registry.begin("ann")
        frame = self.registry.open_root(conversation, "tool")
        frame.listener = TOOL
        return self._made(self.mint.external(conversation, frame, "ann", "tool", b"<x/>"))

    @rule(target=messages, above=messages)
    def call(self, above: MessageState) -> MessageState:
        """A call made during the turn of a message that is still in flight; else a new conversation."""
        frame = above.frame
        if above.outcome is not None or frame is None or frame.state is not FrameState.OPEN:
            return self.external()
        child = self.registry.open_child(frame, TOOL, "tool")
        return self._made(self.mint.to_frame("<Ask/>", None, child, TOOL, frame, "tool"))

    @rule(target=messages, above=messages)
    def next_turn(self, above: MessageState) -> MessageState:
        frame = above.frame
        if above.outcome is not None or frame is None or frame.state is not FrameState.OPEN:
            return self.external()
        return self._made(self.mint.to_frame("<Ask/>", None, frame, TOOL, frame, "tool"))

    @rule(state=messages, outcome=st.sampled_from(list(Outcome)), respond=st.booleans())
    def finish(self, state: MessageState, outcome: Outcome, respond: bool) -> None:
        first = state.outcome is None
        counted = sum(self.ledger.outcomes.values())
        if first and respond and state.frame is not None:
            self.ledger.close(state.frame)
        self.ledger.finish(state, outcome)
        assert sum(self.ledger.outcomes.values()) == counted + first
        if first and state.conversation is not None:
            self.live[state.conversation.id].remove(state)

    @rule(state=messages)
    def cancel_its_frame(self, state: MessageState) -> None:
        if state.frame is not None and state.outcome is None:
            conversation = state.conversation
            assert conversation is not None
            was_open = state.frame.state is FrameState.OPEN
            self.ledger.cancel(state.frame, ForgedMessage("test"), keep=state)
            assert state.frame.state is not FrameState.OPEN
            # What a frame had called before it ended by itself runs on.
            assert not was_open or not any(frame.is_below(state.frame) for frame in conversation.frames)

    @invariant()
    @precondition(lambda self: hasattr(self, "ledger"))
    def the_books_balance(self) -> None:
        in_flight = sum(len(states) for states in self.live.values())
        assert self.mint.accepted == self.made
        assert self.mint.in_flight == in_flight
        assert self.made == sum(self.ledger.outcomes.values()) + in_flight
        assert len(self.completed) == len(set(self.completed))
        for id_, states in self.live.items():
            assert (id_ in self.completed) is (not states), "complete exactly when nothing of it is in flight"
        open_ = [id_ for id_, states in self.live.items() if states]
        assert self.registry.open_conversations == len(open_)
        for conversation in self.registry.conversations():
            states = self.live[conversation.id]
            assert conversation.pending == len(states)
            for frame in conversation.frames:
                assert frame.pending == sum(state.frame is frame for state in states)
                # A message of a closed frame keeps its callers open until it has its outcome.
                assert any(state.frame is not None and state.frame.is_below(frame) for state in states)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_id_that_is_given_out_again_is_forgotten_first_and_not_afterwards() -> None:
    """Also when the timer that forgets it is late."""
    clock, forgotten = Clock(), list[str]()
    registry = ThreadRegistry(thread_idle_ttl=10.0, clock=clock)
    registry.on_forget = forgotten.append
    first = registry.begin("alice", CHOSEN)
    registry.retire(first)
    clock.now += 10.5
    second = registry.begin("mallory", CHOSEN)
    assert second is not first
    assert second.owner == "mallory"
    assert forgotten == [CHOSEN]
    registry.expire()
    assert forgotten == [CHOSEN]
    assert registry.find(CHOSEN) is second


def test_what_is_looked_for_after_its_time_is_forgotten() -> None:
    clock, forgotten = Clock(), list[str]()
    registry = ThreadRegistry(thread_idle_ttl=10.0, clock=clock)
    registry.on_forget = forgotten.append
    registry.retire(registry.begin("alice", CHOSEN))
    clock.now += 9.0
    assert registry.find(CHOSEN) is not None
    clock.now += 1.5
    assert registry.find(CHOSEN) is None
    registry.expire()
    assert forgotten == [CHOSEN]
