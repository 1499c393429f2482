"""Every import path that users' documents name: it exists, or it is known what will bring it."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STREAM_PUMP = "xml_pipeline.message_bus.stream_pump"

BUILT: dict[str, tuple[str, ...]] = {
    STREAM_PUMP: (
        "StreamPump",
        "ConfigLoader",
        "OrganismConfig",
        "ListenerConfig",
        "Listener",
        "PumpEvent",
        "MessageReceivedEvent",
        "MessageSentEvent",
        "AgentStateEvent",
        "ThreadEvent",
        "ReloadEvent",
        "bootstrap",
        "get_stream_pump",
        "set_stream_pump",
        "reset_stream_pump",
        "extract_payloads",
        "make_xsd_validation",
        "make_deserialization",
        "wrap_step",
    ),
    "xml_pipeline.message_bus.message_state": (
        "MessageState",
        "HandlerMetadata",
        "HandlerResponse",
        "SystemError",
        "ROUTING_ERROR",
        "TIMEOUT_ERROR",
    ),
    "xml_pipeline.message_bus.thread_registry": ("ThreadRegistry", "get_registry", "reset_registry"),
    "xml_pipeline.message_bus.todo_registry": ("TodoRegistry", "get_todo_registry"),
    "xml_pipeline.message_bus.dispatch_hook": ("DispatchHook",),
    "xml_pipeline.message_bus.steps.repair": ("repair_step",),
    "xml_pipeline.message_bus.steps.c14n": ("c14n_step",),
    "xml_pipeline.message_bus.steps.envelope_validation": ("envelope_validation_step",),
    "xml_pipeline.message_bus.steps.payload_extraction": ("payload_extraction_step",),
    "xml_pipeline.message_bus.steps.thread_assignment": ("thread_assignment_step",),
    "xml_pipeline.message_bus.operators": ("pipe", "stream"),
    "xml_pipeline.message_bus.join": ("Join", "JoinResult", "Joins", "get_joins"),
    "xml_pipeline.memory": ("ContextBuffer", "get_context_buffer", "reset_context_buffer"),
    "xml_pipeline.primitives": ("Boot", "TextInput", "TextOutput"),
    "xml_pipeline.message_bus.budget_registry": (
        "ThreadBudgetRegistry",
        "ThreadBudget",
        "BudgetExhaustedError",
        "BudgetThresholdCrossed",
        "DEFAULT_WARNING_THRESHOLDS",
        "get_budget_registry",
        "configure_budget_registry",
        "reset_budget_registry",
    ),
    "xml_pipeline.primitives.sequence": (
        "SequenceStart",
        "SequenceComplete",
        "SequenceError",
        "SequenceState",
        "SequenceRegistry",
        "handle_sequence_start",
        "get_sequence_registry",
        "reset_sequence_registry",
    ),
    "xml_pipeline.primitives.buffer": (
        "BufferStart",
        "BufferComplete",
        "BufferDispatched",
        "BufferError",
        "BufferItemResult",
        "BufferState",
        "BufferRegistry",
        "handle_buffer_start",
        "get_buffer_registry",
        "reset_buffer_registry",
    ),
    "xml_pipeline.sequence": (
        "SequenceRequest",
        "handle_sequence_request",
    ),
    "xml_pipeline.sequence.primitives": ("SequenceRequest",),
    "xml_pipeline.sequence.handler": ("handle_sequence_request",),
    "xml_pipeline.platform": (
        "complete",
        "platform_complete",
        "PromptRegistry",
        "AgentPrompt",
        "get_prompt_registry",
    ),
    "xml_pipeline.llm": (
        "LLMRouter",
        "get_router",
        "configure_router",
        "complete",
        "Strategy",
        "LLMRequest",
        "LLMResponse",
        "BackendError",
    ),
    "xml_pipeline.errors": ("PipelineError", "Overloaded", "NoAnswer"),
    "xml_pipeline.mesh": ("AgentMesh", "AgentSpec", "AgentContract", "CatalogEntry", "KVEntry", "MeshError"),
    "xml_pipeline.crypto": ("Identity", "Policy", "Reason", "SignatureRefused", "TrustStore", "Verifier", "sign"),
    "xml_pipeline.crypto.identity": (
        "Identity",
        "IdentityError",
        "generate_identity",
        "load_public_key",
        "verify_with_public_key",
    ),
    "xml_pipeline.crypto.signing": (
        "SIGNATURE_NAMESPACE",
        "SignatureError",
        "sign_envelope",
        "verify_envelope",
        "verify_envelope_with_identity",
        "extract_signature",
        "is_signed",
        "strip_signature",
    ),
    "third_party.xmlable": ("xmlify", "parse_element", "parse_bytes", "parse_string"),
    "xml_pipeline": ("StreamPump", "HandlerResponse", "HandlerMetadata", "bootstrap", "__version__"),
}

# Not built yet, and the part of the project that brings it. When it exists, move it up.
TO_COME: dict[str, str] = {
    "xml_pipeline.message_bus.worker": "the process pool for cpu_bound listeners",
    "xml_pipeline.memory.shared_backend": "shared backends",
}


@pytest.mark.parametrize(("module", "names"), BUILT.items(), ids=list(BUILT))
def test_what_is_built_is_there(module, names):
    imported = importlib.import_module(module)
    missing = [name for name in names if not hasattr(imported, name)]
    assert not missing


@pytest.mark.parametrize("module", TO_COME)
def test_what_is_to_come_is_not_there_yet(module):
    """When this fails, the path is built: move it to the table above, with the names it offers."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:end])
        if not path.with_suffix(".py").is_file() and not (path / "__init__.py").is_file():
            return
    pytest.fail(f"{module} exists now; move it from TO_COME to BUILT")


def test_nothing_stands_in_both_tables():
    assert not BUILT.keys() & TO_COME.keys()
    assert all(TO_COME.values())


# -- imports in the documents themselves


def _documents() -> list[Path]:
    return [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.is_file()]


_IMPORT = re.compile(r"^\s*from ((?:xml_pipeline|third_party)[\w.]*) import ([\w, ]+)$", re.MULTILINE)


@pytest.mark.parametrize("document", _documents(), ids=lambda path: path.name)
def test_imports_in_the_documents_work(document):
    for module, names in _IMPORT.findall(document.read_text(encoding="utf-8")):
        imported = importlib.import_module(module)
        for name in (part.split(" as ")[0].strip() for part in names.split(",")):
            found = hasattr(imported, name) or importlib.util.find_spec(f"{module}.{name}") is not None
            assert found, f"{document.name}: from {module} import {name}"
