"""Configuration of an organism: the models, the loader of ``organism.yaml``, and what reload needs."""

from xml_pipeline.config.environment import read_environment
from xml_pipeline.config.handlers import handler_fault, is_async_callable, payload_class_fault
from xml_pipeline.config.imports import Importer, add_import_directory, resolve
from xml_pipeline.config.limits import Limits
from xml_pipeline.config.llm import BackendConfig, LLMConfig
from xml_pipeline.config.loader import ConfigLoader, Report, load_report, place_problems
from xml_pipeline.config.model import ListenerConfig, OrganismConfig
from xml_pipeline.config.names import BUILTIN_NAMES, broadcast_group, name_fault, reserved_fault
from xml_pipeline.config.peer_tables import PeerTableConfig
from xml_pipeline.config.problems import InvalidConfiguration, Problem
from xml_pipeline.config.rate import Rate
from xml_pipeline.config.reload import ReloadDiff, diff
from xml_pipeline.config.schema import organism_json_schema

__all__ = [
    "BUILTIN_NAMES",
    "BackendConfig",
    "ConfigLoader",
    "Importer",
    "InvalidConfiguration",
    "LLMConfig",
    "Limits",
    "ListenerConfig",
    "OrganismConfig",
    "PeerTableConfig",
    "Problem",
    "Rate",
    "ReloadDiff",
    "Report",
    "add_import_directory",
    "broadcast_group",
    "diff",
    "handler_fault",
    "is_async_callable",
    "load_report",
    "name_fault",
    "organism_json_schema",
    "payload_class_fault",
    "place_problems",
    "read_environment",
    "reserved_fault",
    "resolve",
]
