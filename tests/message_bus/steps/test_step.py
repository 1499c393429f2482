import gc
import logging
import weakref
from functools import partial

import pytest

from xml_pipeline.errors import ForgedMessage, HandlerError, RoutingError, ValidationError
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.steps.step import lift, over_batch, run_step, step, wrap_step


def mark(state):
    """Mark it."""
    state.metadata["seen"] = True
    return state


def refuse(state):
    raise ForgedMessage("not yours")


def crash(state):
    raise KeyError("oops")


def failed():
    state = MessageState()
    state.fail(RoutingError("first"))
    return state


async def by_twin(function, state):
    return await step(function)(state)


async def by_run(function, state):
    return run_step(function, state)


async def by_lift(function, state):
    return lift(function)([state])[0]


@pytest.fixture(params=[by_twin, by_run, by_lift])
def run(request):
    return request.param


async def test_runs_the_step(run):
    state = MessageState()
    assert await run(mark, state) is state
    assert state.metadata == {"seen": True}
    assert state.error is None


async def test_a_step_may_return_another_state(run):
    other = MessageState()
    assert await run(lambda state: other, MessageState()) is other


@pytest.mark.parametrize("result", [None, "text", [MessageState()]])
async def test_a_step_that_returns_no_message_fails_it(run, result):
    state = MessageState()
    assert await run(lambda state: result, state) is state
    assert type(state.failure) is HandlerError
    assert type(result).__name__ in state.error


async def test_a_failed_state_is_passed_by_and_the_first_error_wins(run):
    state = failed()
    await run(mark, state)
    await run(refuse, state)
    await run(crash, state)
    assert state.metadata == {}
    assert state.error == "first"
    assert isinstance(state.failure, RoutingError)


async def test_an_error_text_set_by_a_users_own_stage_is_a_failure_too(run):
    state = MessageState(error="mine")
    await run(mark, state)
    assert state.metadata == {}


async def test_our_errors_are_kept_with_the_step_filled_in(run):
    state = MessageState()
    assert await run(refuse, state) is state
    assert type(state.failure) is ForgedMessage
    assert state.failure.step == "refuse"
    assert state.error == "not yours"


async def test_a_step_already_named_is_kept(run):
    def refuse_elsewhere(state):
        raise ValidationError("no", step="elsewhere")

    state = await run(refuse_elsewhere, MessageState())
    assert state.failure.step == "elsewhere"


async def test_any_other_exception_is_a_validation_error_and_logged(run, caplog):
    with caplog.at_level(logging.ERROR):
        state = await run(crash, MessageState())
    assert type(state.failure) is ValidationError
    assert state.failure.step == "crash"
    assert state.error == "crash: KeyError: 'oops'"
    assert str(state.failure) == ValidationError.public_message
    assert "KeyError" in caplog.text
    assert "in crash" in caplog.text


async def test_our_own_refusals_are_not_logged(run, caplog):
    await run(refuse, MessageState())
    assert caplog.text == ""


async def test_what_is_no_exception_but_an_interruption_passes_through(run):
    def interrupt(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await run(interrupt, MessageState())


async def test_a_failed_state_is_freed_without_the_collector(run):
    def refuse_for_a_reason(state):
        try:
            raise ValueError("cause")
        except ValueError as error:
            raise ValidationError("effect") from error

    class State(MessageState):
        """Slots of the base class have no room for a weak reference."""

    logging.disable()  # pytest keeps log records, and these keep frames
    gc.disable()
    try:
        for function in (refuse, crash, refuse_for_a_reason):
            state = State()
            alive = weakref.ref(state)
            await run(function, state)
            assert state.failure is not None
            del state
            assert alive() is None
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


def test_a_batch_fails_message_by_message():
    def refuse_second(state):
        if state.thread_id == "2":
            raise ValidationError("second")
        return mark(state)

    batch = [MessageState(thread_id=str(number)) for number in range(4)]
    batch[3].fail(RoutingError("before"))
    result = over_batch(refuse_second)(batch)
    assert result is batch
    assert [state.error for state in batch] == [None, None, "second", "before"]
    assert ["seen" in state.metadata for state in batch] == [True, True, False, False]
    assert lift(mark)([]) == []


def test_twins_are_named_after_their_steps():
    assert step(mark).__name__ == "mark_step"
    assert step(mark, "other").__name__ == "other"
    assert step(mark).__module__ == mark.__module__
    assert lift(mark).__name__ == "mark_batch"
    assert run_step(partial(crash), MessageState()).failure.step == "crash"


async def test_wrap_step_takes_plain_and_coroutine_functions():
    twin = step(mark)
    assert wrap_step(twin) is twin
    state = MessageState()
    assert await wrap_step(mark)(state) is state
    assert state.metadata == {"seen": True}


async def test_wrap_step_takes_partials_and_callable_objects():
    async def add(state, key):
        state.metadata[key] = 1
        return state

    class Add:
        async def __call__(self, state):
            return await add(state, "object")

    state = MessageState()
    await wrap_step(partial(add, key="partial"))(state)
    await wrap_step(Add())(state)
    assert state.metadata == {"partial": 1, "object": 1}
