"""The reasons: described, and what they say about trying again."""

from __future__ import annotations

import re
from pathlib import Path

from xml_pipeline.crypto import IdentityError, Reason, SignatureError, SignatureRefused
from xml_pipeline.crypto.trust import Policy
from xml_pipeline.errors import ConfigurationError, PipelineError, ValidationError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "signing.md").read_text(encoding="utf-8")


def first_cells(head: str) -> list[str]:
    table = PAGE[PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [cell for line in table for cell in re.findall(r"^\| `([^`]+)`", line)]


def test_every_reason_and_policy_is_described():
    assert first_cells("| Reason |") == [str(reason) for reason in Reason]
    assert first_cells("| Policy |") == [str(policy) for policy in Policy]


def test_only_what_passes_by_itself_may_be_tried_again():
    assert {reason for reason in Reason if reason.retry_allowed} == {
        Reason.EXPIRED,
        Reason.NOT_REMEMBERED,
        Reason.WINDOW_FULL,
    }
    assert not SignatureRefused.retry_allowed


def test_the_errors_stand_in_the_tree_of_all_errors():
    refused = SignatureRefused(Reason.UNSIGNED, "it must be signed", key_id="k", message_id="m")
    assert SignatureRefused.__mro__[1:4] == (SignatureError, ValidationError, PipelineError)
    assert refused.code == "validation"
    assert (refused.detail, refused.step) == ("unsigned: it must be signed", "verification")
    assert SignatureRefused(Reason.UNSIGNED).detail == "unsigned"
    assert issubclass(IdentityError, ConfigurationError) and str(IdentityError("not found: x")) == "not found: x"
