from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xml_pipeline.mesh.slots import Admission, Slots


def test_first_come_first_served():
    ran: list[str] = []
    slots: Slots[str] = Slots(1, 2, ran.append)
    assert [slots.admit(name) for name in "abcd"] == [
        Admission.RUN,
        Admission.WAIT,
        Admission.WAIT,
        Admission.REFUSE,
    ]
    slots.release()
    slots.release()
    assert ran == ["b", "c"]


def test_who_had_lent_a_slot_comes_before_those_who_wait():
    ran: list[str] = []
    slots: Slots[str] = Slots(1, 5, ran.append)
    slots.admit("asks")
    slots.admit("waits")
    slots.release()  # "asks" lends its own
    assert ran == ["waits"]
    slots.admit("waits, too")
    slots.come_back(lambda: ran.append("asks again"))
    slots.release()
    assert ran == ["waits", "asks again"]
    slots.release()
    assert ran == ["waits", "asks again", "waits, too"]


class Machine(RuleBasedStateMachine):
    """Against a model: who runs, who waits, who comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.running: list[int] = []
        self.waiting: list[int] = []
        self.returning: list[int] = []
        self.lent: list[int] = []
        self.slots: Slots[int] = Slots(3, 4, self.ran)
        self.resumes = {}

    def ran(self, item: int) -> None:
        assert not self.returning, "those who come back are first"
        assert item == self.waiting.pop(0)
        self.running.append(item)

    def resumed(self, item: int) -> None:
        self.returning.remove(item)
        self.running.append(item)

    @rule()
    def arrive(self) -> None:
        self.count += 1
        expected = (
            Admission.RUN if len(self.running) < 3 else Admission.WAIT if len(self.waiting) < 4 else Admission.REFUSE
        )
        assert self.slots.admit(self.count) is expected
        if expected is Admission.RUN:
            self.running.append(self.count)
        elif expected is Admission.WAIT:
            self.waiting.append(self.count)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.running.remove(data.draw(st.sampled_from(self.running)))
        self.slots.release()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def lend(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.running))
        self.running.remove(item)
        self.lent.append(item)
        self.slots.release()

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.lent))
        self.lent.remove(item)
        self.returning.append(item)
        self.resumes[item] = lambda: self.resumed(item)
        self.slots.come_back(self.resumes[item])

    @precondition(lambda self: self.returning)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.returning))
        self.returning.remove(item)
        assert self.slots.give_up(self.resumes[item])
        assert not self.slots.give_up(self.resumes[item])

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(item)
        assert self.slots.withdraw(item)
        assert not self.slots.withdraw(item)

    @invariant()
    def nothing_is_idle_while_somebody_waits(self) -> None:
        assert self.slots.taken == len(self.running) <= 3
        assert list(self.slots) == self.waiting
        assert len(self.running) == 3 or not (self.waiting or self.returning)


TestSlots = Machine.TestCase
