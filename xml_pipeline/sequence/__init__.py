"""The sequence factory: sequences that are checked as a whole before their first step runs."""

from xml_pipeline.sequence.handler import handle_sequence_request
from xml_pipeline.sequence.primitives import SequenceRequest

__all__ = ["SequenceRequest", "handle_sequence_request"]
