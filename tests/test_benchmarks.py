"""The benchmarks run, and notice when work was left out. What they measure is not tested: times are not behaviour."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import codec, floor, pump, report, suite
from benchmarks.__main__ import main
from benchmarks.books import Books
from benchmarks.drive import Tally, through
from benchmarks.measure import Case, Row, Sample, Spread, Target, run_rounds
from benchmarks.messages import FIRST, LARGE, SMALL, Ping, Pong, envelope_of, text_for
from benchmarks.organisms import PAIR, Organism
from benchmarks.size import QUICK, TINY
from xml_pipeline import HandlerMetadata, StreamPump
from xml_pipeline.envelope import read_meta
from xml_pipeline.strict_xml import parse_strict

PROMISED = {
    "pump": {("floor", 1.0), ("floor", 2.0)},
    "naive": {("ours", 20.0)},
    "memory": {("", 10.0)},
    "fairness": {("ours", 3.0)},
    "orchestration": {("by hand", 1.3), ("", 100.0)},
    "mesh": {("raw", 1.25), ("raw", 0.75), ("raw", 0.5), ("openagentmesh", 4.0), ("", 100.0)},
}
"""Column and bound of what the project promises, by benchmark."""


@pytest.mark.parametrize("name", suite.NAMES)
def test_each_benchmark_yields_its_rows(name: str) -> None:
    rows = suite.run([name], TINY)
    assert len(rows) >= 6 or name == "naive"
    assert {row.bench for row in rows} == {name}
    assert len({row.case for row in rows}) == len(rows)
    assert all(row.value.median > 0 for row in rows if row.unit == "us")
    assert {(row.target.column, row.target.limit) for row in rows if row.target} >= PROMISED.get(name, set())
    # Counts are not times: what should be gone is gone, however little was measured.
    assert all(row.target.is_met(row) for row in rows if row.target and not row.unit)
    if name in ("pump", "naive"):
        assert all({"floor", "tuned"} <= row.ratios.keys() for row in rows)


def test_all_libraries_that_are_installed_are_compared() -> None:
    names = [rival.name for rival in codec.installed()]
    assert names[:2] == ["ours", "ours, pydantic models"]
    assert len([case for case in codec.cases(TINY) if case.name.startswith("encode nested")]) == len(names)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_envelopes_have_the_size_they_are_called_by(size: int) -> None:
    assert len(envelope_of(Ping(text_for(size), FIRST), "a")[0]) == size


@pytest.mark.parametrize("loop", [floor.plain_loop, floor.reparsing_loop, floor.lean_loop, floor.tuned_loop])
def test_a_floor_answers_the_sender_on_its_thread(loop: Callable[[bytes, int], bytes]) -> None:
    raw, thread = envelope_of(Ping("a < b", FIRST), "a")
    root = parse_strict(loop(raw, 1))
    assert read_meta(root) == ("a", "external", thread)
    assert [child.text for child in root[1]] == ["a < b", str(FIRST)]


@pytest.mark.parametrize("loop", [floor.plain_loop, floor.reparsing_loop, floor.lean_loop, floor.tuned_loop])
def test_a_floor_validates(loop: Callable[[bytes, int], bytes]) -> None:
    raw, _ = envelope_of(Ping("hello", FIRST), "a")
    for wrong in (raw.replace(b"<N>100000</N>", b"<N>many</N>"), raw.replace(b"thread>", b"Thread>")):
        assert wrong != raw
        with pytest.raises(Exception, match=r"not valid|not a valid|not expected|missing"):
            loop(wrong, 1)


def test_ratios_are_taken_within_a_round() -> None:
    # The machine is three times as slow in the second round; the ratio does not change.
    times = iter([1.0, 3.0, 3.0, 9.0])
    values = iter([4.0, 12.0])
    case = Case("bench", "case", lambda: Sample(next(values)), {"floor": "base"})
    # A round's last baseline serves as the next one's first: 1, 3 and 3, 9.
    (row,) = run_rounds([case], {"base": lambda: Sample(next(times))}, 2)
    assert row.value == Spread(8.0, 4.0, 12.0)
    assert row.ratios == {"floor": Spread.of([4.0 / 2.0, 12.0 / 3.0])}


def test_a_target_is_met_or_not() -> None:
    row = Row("bench", "case", Spread(5.0, 1.0, 9.0), ratios={"floor": Spread(1.5, 1.0, 2.0)})
    assert Target(5.0).is_met(row)
    assert not Target(4.9).is_met(row)
    assert Target(1.5, "floor", at_least=True).is_met(row)
    assert not Target(1.6, "floor", at_least=True).is_met(row)


@pytest.mark.parametrize("marks", [[FIRST], [FIRST, FIRST + 1, FIRST + 1], [FIRST, FIRST]])
def test_a_message_handled_never_or_twice_is_noticed(marks: list[int]) -> None:
    tally = Tally()
    tally.begin(2, lambda: None)
    for number in marks:
        tally.mark(number)
    with pytest.raises(AssertionError, match="exactly once"):
        tally.check()


async def test_no_more_conversations_are_in_flight_than_asked_for() -> None:
    tally, most, running = Tally(), 0, 0

    async def end(number: int) -> None:
        nonlocal running
        await asyncio.sleep(0)
        running -= 1
        tally.mark(number)

    tasks = []

    async def send(number: int) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        tasks.append(asyncio.create_task(end(number)))

    await through(send, tally, lambda: asyncio.gather(*tasks), 20, 3)
    assert most == 3


async def test_books_that_do_not_balance_are_noticed() -> None:
    async def handle(ping: Ping, metadata: HandlerMetadata) -> None:
        pass

    pump = StreamPump()
    pump.register("a", handle, Ping)
    async with pump:
        await pump.wait_idle()
        books = Books(pump)
        await pump.inject("a", Ping("x", FIRST))
        await pump.wait_idle()
        books.check({"handled": 1})
        for wrong in ({"handled": 2}, {"handled": 1, "forwarded": 1}, {"failed": 1}, {}):
            with pytest.raises(AssertionError, match="outcomes"):
                books.check(wrong)


def test_a_run_that_fails_a_message_is_no_measurement() -> None:
    def populate(registers: object, tally: Tally) -> None:
        async def fail(payload: Ping | Pong, metadata: HandlerMetadata) -> None:
            tally.mark(payload.n)
            raise ValueError("on purpose")

        registers.register("a", fail, Ping)  # type: ignore[attr-defined]

    load = pump.Load(Organism("a", populate, {"handled": 1}))
    with pytest.raises(AssertionError, match="outcomes"):
        pump.measured(load, TINY)()


def test_the_usual_load_is_two_messages() -> None:
    assert PAIR.messages == 2


@pytest.fixture
def own_log_level() -> Iterator[None]:
    """The command line turns the log down, for its own process."""
    logger = logging.getLogger("xml_pipeline")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.usefixtures("own_log_level")
def test_the_command_line_writes_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "made" / "figures.json"
    assert main(["steps", "--quick", "--rounds", "1", "--json", str(file)]) == 0
    assert "strict parse" in capsys.readouterr().out
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["environment"]["cpus"] >= 1
    assert figures["environment"]["packages"]["lxml"]
    assert figures["environment"]["rounds"] == 1
    assert [row["bench"] for row in figures["rows"]] == ["steps"] * len(figures["rows"])


@pytest.mark.parametrize("arguments", [["speed"], ["--rounds", "0"]])
def test_bad_arguments_get_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_table_shows_ratios_and_what_was_missed(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row(
        "pump",
        "pair",
        Spread(30.0, 29.0, 31.0),
        "us",
        30.5,
        {"floor": Spread(1.1, 1.0, 1.2)},
        Target(1.0, "floor"),
        "slow",
    )
    report.show([row], report.environment(QUICK), Console(width=160))
    shown = capsys.readouterr().out
    for text in ("30 us [29-31]", "30.5", "1.10 [1.00-1.20]", "MISSED (<= 1 x floor)", "slow", "x floor", "quick run"):
        assert text in shown
    assert "x ours" not in shown
