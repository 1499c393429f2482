"""`complete`: the model call of an agent, with all that a model is to know.

The messages, in this order:

=========== ==================================================================================================
role        content
=========== ==================================================================================================
system      the agent's prompt
system      how to call its peers, if it has any in this conversation
user,       the agent's history in this conversation, oldest first: what it sent as ``assistant``, what it got as
assistant   ``user``
system      the reminder of its raised todos, if there are any
user        the caller's own text
=========== ==================================================================================================

The form of the history's entries is told in `xml_pipeline.platform.history`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xml_pipeline.message_bus.thread_registry import get_registry
from xml_pipeline.message_bus.todo_registry import get_todo_registry
from xml_pipeline.platform.history import MAX_HISTORY_CHARS, history_messages
from xml_pipeline.platform.model_call import call_model
from xml_pipeline.platform.prompt_registry import AgentPrompt, get_prompt_registry

if TYPE_CHECKING:
    from xml_pipeline.llm import Tool

__all__ = ["MAX_HISTORY_CHARS", "complete", "messages_for", "platform_complete"]


async def complete(
    agent_name: str,
    thread_id: str,
    user_message: str,
    *,
    temperature: float | None = 0.7,
    max_tokens: int | None = 1024,
    include_history: bool = True,
    model: str | None = None,
    tools: Sequence[Tool] | None = None,
    metadata: Mapping[str, Any] | None = None,
    max_history_chars: int = MAX_HISTORY_CHARS,
) -> str:
    """Call a model on behalf of an agent, and return what it says.

    ::

        answer = await complete(metadata.own_name, metadata.thread_id, payload.question)

    The call is charged to the budget of the thread's conversation.

    Args:
        agent_name: the agent's registered name. A handler can only ask for its own.
        thread_id: the frame that asks: ``metadata.thread_id``.
        user_message: what the model is to answer.
        temperature: ``None`` for the provider's default.
        max_tokens: of the answer; ``None`` for the provider's default.
        include_history: whether the model sees what the agent sent and got in this conversation.
        model: its name; default: the agent's own, else the router's default.
        tools: what the model may ask for. That it did is lost here; call the router itself to use tools.
        metadata: kept with the usage of this call.
        max_history_chars: what is older than so many characters of history is left out.

    Returns:
        The text of the model's answer.

    Raises:
        BudgetExhausted: the conversation has no budget left for this call; no model was called.
        RuntimeError: there is no such prompt, thread or model, or the call failed, which is then its cause. The text
            carries no key.
        TypeError: ``user_message`` is not a string.
    """
    messages = messages_for(
        agent_name, thread_id, user_message, include_history=include_history, max_history_chars=max_history_chars
    )
    response = await call_model(
        agent_name,
        thread_id,
        messages,
        model=model or _prompt_of(agent_name).model,
        temperature=temperature,
        max_tokens=max_tokens,
        tools=tools,
        metadata=metadata,
    )
    return response.content


platform_complete = complete


def messages_for(
    agent_name: str,
    thread_id: str,
    user_message: str,
    *,
    include_history: bool = True,
    max_history_chars: int = MAX_HISTORY_CHARS,
) -> list[dict[str, str]]:
    """The messages of `complete`, with the same arguments, for callers that talk to the router themselves.

    Raises:
        RuntimeError: there is no such prompt or thread.
        TypeError: ``user_message`` is not a string.
    """
    if not isinstance(user_message, str):
        raise TypeError(f"user_message must be a string, not {type(user_message).__name__}")
    prompt = _prompt_of(agent_name)
    conversation_id = _conversation_of(thread_id)
    messages = [
        {"role": "system", "content": prompt.system_prompt},
        {"role": "system", "content": get_prompt_registry().peer_schemas(agent_name, thread_id)},
    ]
    if include_history:
        messages += history_messages(conversation_id, agent_name, max_history_chars)
    todos = get_todo_registry()
    nudge = todos.format_nudge(todos.get_raised_for(conversation_id, agent_name))
    messages.append({"role": "system", "content": nudge})
    messages = [message for message in messages if message["content"]]
    messages.append({"role": "user", "content": user_message})
    return messages


def _prompt_of(agent_name: str) -> AgentPrompt:
    prompt = get_prompt_registry().get(agent_name)
    if prompt is None:
        raise RuntimeError(
            f"there is no prompt for agent {agent_name!r} here: register the listener with agent=True and a prompt, "
            "and let each agent's handler ask with its own name (metadata.own_name)"
        )
    return prompt


def _conversation_of(thread_id: str) -> str:
    frame = get_registry().lookup(thread_id)
    if frame is None:
        raise RuntimeError(f"there is no thread {thread_id!r}: give the handler's own, metadata.thread_id")
    return frame.conversation_id
