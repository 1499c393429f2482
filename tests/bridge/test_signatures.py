"""Signed calls between organisms: whatever is not what a trusted key signed, for this agent, once, is refused."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from lxml import etree

from tests.bridge.kit import Ask, Told, count, organism
from tests.bridge.pair import bank_of, keys_for, met, shop_of, trust_in, wiretapped
from tests.mesh.kit import echo_on
from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.bridge.letters import answers_for, write_answer, write_end, write_request
from xml_pipeline.bridge.refused import EnvelopeRefusedEvent
from xml_pipeline.crypto import (
    Policy,
    Reason,
    ReplayWindow,
    SignatureRefused,
    TrustedKey,
    TrustStore,
    Verifier,
    sign,
)
from xml_pipeline.envelope import extract_meta
from xml_pipeline.errors import ConfigurationError, HandlerError, ValidationError
from xml_pipeline.mesh import AgentContract, AgentMesh, AgentSpec, InvalidInput, MeshError, NotAvailable
from xml_pipeline.mesh.agent import Agent
from xml_pipeline.mesh.raw import raw_agent
from xml_pipeline.mesh.shapes import Shape

THREAD = "7c0d3d5e-8f6c-4f0e-9a57-0d9f6c1b2a34"
ASKED = codec_of(Ask).encode_payload(Ask("x"))


def letter(sender: str = "shop.clerk", to: str = "bank.clerk", payload: str = ASKED) -> bytes:
    return write_request(payload, sender, to, THREAD)


@pytest.fixture
def keys(tmp_path):
    return keys_for(tmp_path, "shop", "bank", "mallory")


@dataclass
class Go:
    pass


class Clerk:
    """Answers, and remembers who asked."""

    def __init__(self) -> None:
        self.senders: list[str] = []

    async def __call__(self, ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        self.senders.append(metadata.from_id)
        return HandlerResponse.respond(Told(ask.message))


@pytest.fixture
def clerk():
    return Clerk()


@pytest.fixture
async def bank(server, keys, clerk):
    """It requires that the shop signs, and takes what others say as what it is."""
    pump = bank_of(server.url, keys["bank"], trust=[trust_in("shop", keys["shop"])], signatures="accept")
    pump.register("clerk", clerk, Ask, output_class=Told)
    async with pump:
        await met(pump, "bank.clerk")
        yield pump


def refusals(pump: StreamPump) -> dict[str, int]:
    return dict(pump.attachments[0].refused)


# -- the good case


async def test_a_signature_proves_who_called(server, keys, bank, clerk):
    shop = shop_of(server.url, keys["shop"], trust=[trust_in("bank", keys["bank"])], signatures="require")
    async with shop:
        await met(shop, "bank.clerk")
        assert await shop.request("bank.clerk", Ask("hi")) == Told("hi")
        assert await shop.request("bank.clerk", Ask("hi"), from_id="tester") == Told("hi")
    assert clerk.senders == ["mesh:shop.external", "mesh:shop.tester"]
    assert refusals(bank) == {}


async def test_signed_chunks_come_in_their_order(server, keys):
    bank = bank_of(server.url, keys["bank"], trust=[trust_in("shop", keys["shop"])])
    bank.register("clerk", count, Ask)
    shop = shop_of(server.url, keys["shop"], trust=[trust_in("bank", keys["bank"])])
    async with bank, shop:
        await met(shop, "bank.clerk")
        answers = [answer async for answer in shop.stream("bank.clerk", Ask("c", 3))]
    assert answers == [Told("c0"), Told("c1"), Told("c2")]


async def test_the_key_is_kept_with_the_call(server, keys, bank):
    taken, seen = bank.engine.gateway._admit, []

    async def look(arrival, **options):
        seen.extend(arrival.extensions)
        return await taken(arrival, **options)

    bank.engine.gateway._admit = look
    async with wiretapped(server.url) as wire:
        await wire.send(sign(letter(), keys["shop"], destination="bank.clerk"))
    (caller,) = seen
    assert [(etree.QName(child).localname, child.text) for child in caller] == [
        ("from", "shop.clerk"),
        ("thread", THREAD),
        ("key", keys["shop"].key_id),
    ]


# -- requests that are refused


def _cut(raw: bytes) -> bytes:
    start = raw.index(b"<sig ")
    return raw[:start] + raw[raw.index(b"</sig>") + len(b"</sig>") :]


def _wrapped(raw: bytes) -> bytes:
    """The signed payload moves into an extension, and another one takes its place."""
    start, end = raw.index(b"<Ask "), raw.index(b"</message>")
    payload = raw[start:end]
    hidden = b'<x:old xmlns:x="urn:x">' + payload + b"</x:old>"
    return raw[:start].replace(b"<sig ", hidden + b"<sig ") + payload.replace(b">x<", b">y<") + raw[end:]


def _twice_signed(raw: bytes) -> bytes:
    start, end = raw.index(b"<sig "), raw.index(b"</sig>") + len(b"</sig>")
    return raw[:end] + raw[start:end] + raw[end:]


def _moved(raw: bytes) -> bytes:
    start, end = raw.index(b"<sig "), raw.index(b"</sig>") + len(b"</sig>")
    return raw[:start] + raw[end:].replace(b"</message>", raw[start:end] + b"</message>")


REFUSED = {
    "tampered": (lambda raw, keys: raw.replace(b">x<", b">y<"), Reason.BAD_SIGNATURE),
    "sender changed": (lambda raw, keys: raw.replace(b"shop.clerk", b"shop.chief"), Reason.BAD_SIGNATURE),
    "re-addressed": (lambda raw, keys: raw.replace(b'to="bank.clerk"', b'to="bank.chief"'), Reason.BAD_SIGNATURE),
    "unsigned": (lambda raw, keys: _cut(raw), Reason.UNSIGNED),
    "unsigned, in another case": (
        lambda raw, keys: _cut(raw).replace(b"shop.clerk", b"SHOP.clerk"),
        Reason.UNSIGNED,
    ),
    "wrapped": (lambda raw, keys: _wrapped(raw), Reason.BAD_SIGNATURE),
    "signed twice": (lambda raw, keys: _twice_signed(raw), Reason.WRAPPED),
    "signature elsewhere": (lambda raw, keys: _moved(raw), Reason.WRAPPED),
    "another spelling": (lambda raw, keys: raw.replace(b"<meta>", b"<meta >"), Reason.NOT_CANONICAL),
    "cut off": (lambda raw, keys: raw[:-3], Reason.MALFORMED),
    "a key that nobody trusts": (
        lambda raw, keys: sign(letter(), keys["mallory"], destination="bank.clerk"),
        Reason.UNTRUSTED_KEY,
    ),
    "in somebody else's name": (
        lambda raw, keys: sign(letter("bank.clerk"), keys["shop"], destination="bank.clerk"),
        Reason.NAME_NOT_ALLOWED,
    ),
    "in the name of the organism itself": (
        lambda raw, keys: sign(letter("shop"), keys["shop"], destination="bank.clerk"),
        Reason.NAME_NOT_ALLOWED,
    ),
    "signed for somebody else": (
        lambda raw, keys: sign(letter(), keys["shop"], destination="bank.teller"),
        Reason.WRONG_DESTINATION,
    ),
    "addressed to somebody else": (
        lambda raw, keys: sign(letter(to="bank.teller"), keys["shop"], destination="bank.clerk"),
        Reason.WRONG_DESTINATION,
    ),
    "an answer": (
        lambda raw, keys: sign(
            write_answer(ASKED, "shop.clerk", "bank.clerk", THREAD), keys["shop"], destination=answers_for("bank.clerk")
        ),
        Reason.WRONG_DESTINATION,
    ),
    "too old": (
        lambda raw, keys: sign(letter(), keys["shop"], destination="bank.clerk", created=time.time() - 600),
        Reason.EXPIRED,
    ),
    "from the future": (
        lambda raw, keys: sign(letter(), keys["shop"], destination="bank.clerk", created=time.time() + 600),
        Reason.FROM_THE_FUTURE,
    ),
}


@pytest.mark.parametrize("how", REFUSED)
async def test_what_is_refused_is_recorded_with_its_reason(server, keys, bank, clerk, caplog, how):
    change, reason = REFUSED[how]
    events = []
    bank.subscribe_events(events.append)
    async with wiretapped(server.url) as wire:
        raw = change(sign(letter(), keys["shop"], destination="bank.clerk"), keys)
        reply = await wire.send(raw)
        error = MeshError.from_wire(reply.data)
    await bank.engine.events.flush()
    assert clerk.senders == []
    assert (error.code, error.message) == ("invalid_input", "The message was not accepted.")
    assert reason.value not in reply.data.decode()
    assert refusals(bank) == {reason.value: 1}
    (event,) = [event for event in events if isinstance(event, EnvelopeRefusedEvent)]
    assert (event.reason, event.agent, event.is_answer) == (reason.value, "bank.clerk", False)
    assert f"refused: {reason.value}" in caplog.text
    assert len(bank.dead_letters) == 0


async def test_a_replay_is_refused(server, keys, bank, clerk):
    async with wiretapped(server.url) as wire:
        raw = sign(letter(), keys["shop"], destination="bank.clerk")
        assert (await wire.send(raw)).headers["X-Mesh-Status"] == "ok"
        for _ in range(3):
            assert (await wire.send(raw)).headers["X-Mesh-Status"] == "error"
        assert (await wire.send(sign(letter(), keys["shop"], destination="bank.clerk"))).headers[
            "X-Mesh-Status"
        ] == "ok"
    assert len(clerk.senders) == 2
    assert refusals(bank) == {"replayed": 3}


async def test_a_replay_is_refused_by_the_other_nodes_and_after_a_restart(server, keys, bank, clerk):
    async with wiretapped(server.url) as wire:
        raw = sign(letter(), keys["shop"], destination="bank.clerk")
        assert (await wire.send(raw)).headers["X-Mesh-Status"] == "ok"
        await bank.shutdown()
        for _ in range(2):  # each knows nothing but what the server does
            again = bank_of(server.url, keys["bank"], trust=[trust_in("shop", keys["shop"])])
            again.register("clerk", clerk, Ask)
            async with again:
                await met(again, "bank.clerk")
                assert (await wire.send(raw)).headers["X-Mesh-Status"] == "error"
                assert refusals(again) == {"replayed": 1}
                anew = sign(letter(), keys["shop"], destination="bank.clerk")
                assert (await wire.send(anew)).headers["X-Mesh-Status"] == "ok"
    assert len(clerk.senders) == 3


async def test_where_the_server_has_forgotten_what_came_nothing_old_comes_in(server, keys, bank, clerk):
    async with wiretapped(server.url) as wire:
        first = sign(letter(), keys["shop"], destination="bank.clerk")
        assert (await wire.send(first)).headers["X-Mesh-Status"] == "ok"
        second, third = (sign(letter(), keys["shop"], destination="bank.clerk") for _ in range(2))
        await wire.client.jetstream().delete_stream("KV_mesh-seen")
        assert (await wire.send(second)).headers["X-Mesh-Status"] == "error"
        assert (await wire.send(third)).headers["X-Mesh-Status"] == "error"
        assert (await wire.send(first)).headers["X-Mesh-Status"] == "error"
        later = sign(letter(), keys["shop"], destination="bank.clerk", created=time.time() + 1)
        assert (await wire.send(later)).headers["X-Mesh-Status"] == "ok"
    assert refusals(bank) == {"not-remembered": 3}


async def test_every_bit_counts(server, keys, bank, clerk):
    """All single bits of a request, through the door itself: each is refused."""
    raw = sign(letter(), keys["shop"], destination="bank.clerk")
    border = bank.attachments[0]._border
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            with pytest.raises(SignatureRefused):
                await border.admit(bytes(changed), "bank.clerk")
    assert sum(refusals(bank).values()) == 8 * len(raw)
    assert (await border.admit(raw, "bank.clerk")).is_proven


async def test_what_is_larger_than_a_message_may_be_is_not_looked_at(keys, bank):
    with pytest.raises(SignatureRefused) as caught:
        await bank.attachments[0]._border.admit(b" " * (bank.config.limits.max_message_bytes + 1), "bank.clerk")
    assert caught.value.reason is Reason.TOO_LARGE


# -- policies


@pytest.mark.parametrize(
    ("of_shop", "of_others", "signed", "json", "senders"),
    [
        ("require", "accept", True, False, ["mesh:shop.clerk"]),
        ("require", "accept", False, False, []),
        ("require", "accept", False, True, ["mesh:anonymous"]),
        ("require", "require", False, True, []),
        ("accept", "require", True, False, ["mesh:shop.clerk"]),
        ("accept", "require", False, False, ["mesh:anonymous"]),
        ("ignore", "require", True, False, ["mesh:anonymous"]),
        ("ignore", "require", False, False, ["mesh:anonymous"]),
    ],
)
async def test_policies(server, keys, clerk, of_shop, of_others, signed, json, senders):
    trust = [trust_in("shop", keys["shop"], of_shop)]
    bank = bank_of(server.url, trust=trust, signatures=of_others)
    bank.register("clerk", clerk, Ask)
    async with bank, wiretapped(server.url) as wire:
        await met(bank, "bank.clerk")
        if json:
            await wire.client.request("mesh.agent.bank.clerk", b'{"message": "x"}', timeout=20)
        else:
            await wire.send(sign(letter(), keys["shop"], destination="bank.clerk") if signed else letter())
    assert clerk.senders == senders


@pytest.mark.parametrize("policy", ["require", "accept", "ignore"])
async def test_everybody_else(server, keys, clerk, policy):
    bank = bank_of(server.url, signatures=policy)
    bank.register("clerk", clerk, Ask)
    async with bank, wiretapped(server.url) as wire:
        await met(bank, "bank.clerk")
        await wire.send(letter())
        await wire.send(sign(letter(), keys["shop"], destination="bank.clerk"))
    assert len(clerk.senders) == {"require": 0, "accept": 1, "ignore": 2}[policy]
    assert set(clerk.senders) <= {"mesh:anonymous"}


async def test_a_publisher_of_ours_needs_no_signature(server, keys, peer):
    bank = bank_of(server.url, keys["bank"], signatures="require", expose=[{"listener": "news"}])

    async def news(go: Go, metadata: HandlerMetadata):
        yield HandlerResponse.respond(Told("news"))

    subscription = await peer.subscribe("mesh.agent.bank.news.events")
    await peer.flush()
    bank.register("news", news, Go)
    async with bank:
        assert b"news" in (await subscription.next_msg(timeout=20)).data
    assert refusals(bank) == {}


# -- answers that are refused


def impostor(mesh: AgentMesh, name: str, answer) -> Agent:
    """An agent that answers with whatever bytes it likes."""
    contract = AgentContract(name=name, description="")
    spec = AgentSpec(name=name, description="")

    async def serve(request) -> bytes:
        meta = extract_meta(etree.fromstring(request.body))
        return answer(meta["from_id"], meta["thread_id"])

    return raw_agent(spec, contract, Shape.RESPONDER, serve)


TOLD = codec_of(Told).encode_payload(Told("x"))
OTHER = "7c0d3d5e-8f6c-4f0e-9a57-0d9f6c1b2a35"
ANSWERS = {
    "as json": (lambda keys, caller, thread: b'{"reply": "x"}', Reason.UNSIGNED),
    "unsigned": (lambda keys, caller, thread: write_answer(TOLD, "bank.clerk", caller, thread), Reason.UNSIGNED),
    "in an unknown name": (lambda keys, caller, thread: write_answer(TOLD, "a.b", caller, thread), Reason.UNSIGNED),
    "by a key nobody trusts": (
        lambda keys, caller, thread: sign(
            write_answer(TOLD, "bank.clerk", caller, thread), keys["mallory"], destination=answers_for(caller)
        ),
        Reason.UNTRUSTED_KEY,
    ),
    "by another organism": (
        lambda keys, caller, thread: sign(
            write_answer(TOLD, "news.clerk", caller, thread), keys["news"], destination=answers_for(caller)
        ),
        Reason.NAME_NOT_ALLOWED,
    ),
    "by another organism in its name": (
        lambda keys, caller, thread: sign(
            write_answer(TOLD, "bank.clerk", caller, thread), keys["news"], destination=answers_for(caller)
        ),
        Reason.NAME_NOT_ALLOWED,
    ),
    "of another call": (
        lambda keys, caller, thread: sign(
            write_answer(TOLD, "bank.clerk", caller, OTHER), keys["bank"], destination=answers_for(caller)
        ),
        Reason.WRONG_DESTINATION,
    ),
    "to somebody else": (
        lambda keys, caller, thread: sign(
            write_answer(TOLD, "bank.clerk", caller, thread), keys["bank"], destination=answers_for("news.clerk")
        ),
        Reason.WRONG_DESTINATION,
    ),
    "that is a request": (
        lambda keys, caller, thread: sign(
            write_request(TOLD, "bank.clerk", caller, thread), keys["bank"], destination=caller
        ),
        Reason.WRONG_DESTINATION,
    ),
    "tampered": (
        lambda keys, caller, thread: sign(
            write_answer(TOLD, "bank.clerk", caller, thread), keys["bank"], destination=answers_for(caller)
        ).replace(b">x<", b">y<"),
        Reason.BAD_SIGNATURE,
    ),
}


@pytest.mark.parametrize("how", ANSWERS)
async def test_an_answer_must_be_that_of_the_one_who_was_asked(server, tmp_path, mesh, how):
    keys = keys_for(tmp_path, "shop", "bank", "mallory", "news")
    make, reason = ANSWERS[how]
    await mesh.offer(impostor(mesh, "bank.clerk", lambda caller, thread: make(keys, caller, thread)))
    trust = [trust_in("bank", keys["bank"]), trust_in("news", keys["news"])]
    shop = shop_of(server.url, keys["shop"], trust=trust)
    async with shop:
        await met(shop, "bank.clerk")
        with pytest.raises(SignatureRefused) as caught:
            await shop.request("bank.clerk", Ask("x"))
        assert caught.value.reason is reason
        assert refusals(shop) == {reason.value: 1}


async def test_the_right_answer_is_taken(server, tmp_path, mesh):
    """What the impostors above do wrong is all that is wrong with them."""
    keys = keys_for(tmp_path, "shop", "bank")

    def answer(caller: str, thread: str) -> bytes:
        envelope = write_answer(TOLD, "bank.clerk", caller, thread)
        return sign(envelope, keys["bank"], destination=answers_for(caller))

    await mesh.offer(impostor(mesh, "bank.clerk", answer))
    shop = shop_of(server.url, keys["shop"], trust=[trust_in("bank", keys["bank"])])
    async with shop:
        await met(shop, "bank.clerk")
        assert await shop.request("bank.clerk", Ask("x")) == Told("x")


@pytest.mark.parametrize("wrong", [(0, 2, 1), (1,), (0, 0), (0, 1), (0, 1, "end 1"), ("end 1",), ()])
async def test_a_stream_that_is_cut_or_in_another_order_is_no_stream(server, keys, mesh, wrong):
    """Two chunks, and an end that says so, are what is right."""

    def answers(caller: str, thread: str):
        for each in wrong:
            if isinstance(each, int):
                envelope = write_answer(TOLD, "bank.clerk", caller, thread, each)
            else:
                envelope = write_end("bank.clerk", caller, thread, int(each.split()[1]))
            yield sign(envelope, keys["bank"], destination=answers_for(caller))

    async def serve(request):
        meta = extract_meta(etree.fromstring(request.body))
        for body in answers(meta["from_id"], meta["thread_id"]):
            yield body

    contract = AgentContract(name="bank.clerk", description="", streaming=True)
    await mesh.offer(raw_agent(AgentSpec(name="bank.clerk", description=""), contract, Shape.STREAMER, serve))
    shop = shop_of(server.url, keys["shop"], trust=[trust_in("bank", keys["bank"])])
    async with shop:
        await met(shop, "bank.clerk")
        with pytest.raises(HandlerError) as caught:
            async for _ in shop.stream("bank.clerk", Ask("x")):
                pass
        assert "chunk_sequence_error" in caught.value.detail


async def test_who_is_trusted_is_asked_in_xml_whatever_its_contract_says(server, keys, mesh):
    echo_on(mesh, "bank.clerk")
    shop = shop_of(server.url, keys["shop"], trust=[trust_in("bank", keys["bank"])])
    async with shop, wiretapped(server.url) as wire:
        await met(shop, "bank.clerk")
        with pytest.raises(ValidationError):
            await shop.request("bank.clerk", Ask("x"))
        assert b"<sig " in (await wire.next()).data


async def test_what_is_sent_again_is_signed_anew(server, keys, mesh):
    bodies = []

    async def serve(request) -> bytes:
        bodies.append(request.body)
        if len(bodies) == 1:
            raise NotAvailable()
        meta = extract_meta(etree.fromstring(request.body))
        answer = write_answer(TOLD, "bank.clerk", meta["from_id"], meta["thread_id"])
        return sign(answer, keys["bank"], destination=answers_for(meta["from_id"]))

    contract = AgentContract(name="bank.clerk", description="")
    await mesh.offer(raw_agent(AgentSpec(name="bank.clerk", description=""), contract, Shape.RESPONDER, serve))
    entry = {"name": "bank.clerk", "payload_class": Ask, "output_class": Told, "idempotent": True}
    shop = shop_of(server.url, keys["shop"], trust=[trust_in("bank", keys["bank"])], agents=[entry])
    async with shop:
        await met(shop, "bank.clerk")
        assert await shop.request("bank.clerk", Ask("x")) == Told("x")
    first, second = (etree.fromstring(body).find(".//{*}sig").get("id") for body in bodies)
    assert first != second


def test_only_the_tree_of_what_came_unsigned_is_handed_on(keys):
    trusted = TrustedKey(keys["shop"].public_key, ("shop.*",), Policy.IGNORE)
    door = Verifier(TrustStore((trusted,), Policy.ACCEPT), ReplayWindow())
    unsigned = door.verify(letter(), "bank.clerk")
    assert etree.tostring(unsigned.root) == unsigned.envelope == letter()
    stripped = door.verify(sign(letter(), keys["shop"], destination="bank.clerk"), "bank.clerk")
    assert (stripped.root, stripped.envelope) == (None, letter())


# -- configuration


async def test_a_reload_changes_whom_is_trusted(server, keys, clerk, tmp_path):
    def write(*trusted: str, signatures: str = "accept") -> None:
        entries = "".join(
            f"    - {{key: {keys[name].get_public_key_base64()!r}, organism: {name}}}\n" for name in trusted
        )
        path.write_text(
            f"organism: {{name: bank, identity: bank.key}}\nlisteners: []\n"
            f"mesh:\n  url: {server.url}\n  signatures: {signatures}\n  trust:\n{entries or '    []'}\n"
            "  expose: []\n"
        )

    path = tmp_path / "organism.yaml"
    write("shop")
    pump = await StreamPump.from_yaml(str(path))
    try:
        border = pump.attachments[0]._border

        async def reason(raw: bytes) -> str:
            try:
                return str((await border.admit(raw, "bank.clerk")).is_proven)
            except SignatureRefused as refused:
                return str(refused.reason)

        def by(name: str) -> bytes:
            return sign(letter(f"{name}.a"), keys[name], destination="bank.clerk")

        assert [await reason(by("shop")), await reason(by("mallory"))] == ["True", "untrusted-key"]
        write("shop", "mallory")
        assert pump.reload_config().success
        assert [await reason(by("shop")), await reason(by("mallory"))] == ["True", "True"]
        write(signatures="require")
        assert pump.reload_config().success
        assert [await reason(by("shop")), await reason(letter("a.b"))] == ["untrusted-key", "unsigned"]
        path.write_text(path.read_text().replace("trust:", "trust: [{key: abc, organism: shop}]\n  x:"))
        assert not pump.reload_config().success
        assert [await reason(by("shop")), await reason(letter("a.b"))] == ["untrusted-key", "unsigned"]
    finally:
        await pump.shutdown()


async def test_a_reload_changes_the_identity_or_nothing(server, keys, tmp_path):
    path = tmp_path / "organism.yaml"
    path.write_text("organism: {name: bank, identity: bank.key}\nlisteners: []\n")
    pump = await StreamPump.from_yaml(str(path))
    try:
        assert pump.identity == keys["bank"]
        path.write_text("organism: {name: bank, identity: mallory.key}\nlisteners: []\n")
        assert pump.reload_config().success
        assert pump.identity == keys["mallory"]
        path.write_text("organism: {name: bank, identity: nobody.key}\nlisteners: []\n")
        event = pump.reload_config()
        assert f"{path}:1:34 organism.identity: " in event.error
        assert pump.identity == keys["mallory"]
    finally:
        await pump.shutdown()


async def test_an_identity_that_cannot_be_loaded_is_fatal(tmp_path, keys):
    with pytest.raises(ConfigurationError, match=r"organism.identity: .*nobody\.key"):
        StreamPump(identity_path=str(tmp_path / "nobody.key"))
    path = tmp_path / "organism.yaml"
    path.write_text("organism:\n  name: bank\n  identity: nobody.key\nlisteners: []\n")
    with pytest.raises(ConfigurationError) as caught:
        await StreamPump.from_yaml(str(path))
    assert f"{path}:3:13 organism.identity: " in str(caught.value)
    (tmp_path / "nobody.key").write_text("no key")
    (tmp_path / "nobody.key").chmod(0o600)
    with pytest.raises(ConfigurationError, match="no private key"):
        await StreamPump.from_yaml(str(path))


def test_the_pump_shows_its_identity(keys):
    pump = StreamPump(identity_path=keys["shop"].path)
    assert pump.identity is not None
    assert (pump.identity.key_id, pump.identity.get_public_key_base64()) == (
        keys["shop"].key_id,
        keys["shop"].get_public_key_base64(),
    )
    assert StreamPump().identity is None


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"key": "abc", "organism": "shop"}, "trust[0].key: a public key is the base64 of 32 bytes"),
        ({"key": "A" * 43 + "=", "organism": "shop"}, "trust[0].key: the public key is no point of prime order"),
        ({"key": "-----BEGIN PRIVATE KEY-----\nsecret", "organism": "shop"}, "trust[0].key: Failed to load"),
        ({"key": "KEY", "organism": "*"}, "trust[0].organism: an organism's name has no '*'"),
        ({"key": "KEY", "organism": "shop", "policy": "maybe"}, "trust[0].policy"),
    ],
)
def test_trust_is_checked_when_it_is_read(keys, entry, text):
    entry = {**entry, "key": entry["key"].replace("KEY", keys["shop"].get_public_key_base64())}
    with pytest.raises(ConfigurationError) as caught:
        organism("nats://127.0.0.1:4222", trust=[entry])
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_speaks_for_one_organism(keys):
    entries = [trust_in("shop", keys["shop"]), trust_in("bank", keys["shop"])]
    with pytest.raises(ConfigurationError, match=r"trust\[1\].key: is the same as that of trust\[0\]"):
        organism("nats://127.0.0.1:4222", trust=entries)


async def test_a_plain_caller_is_told_that_it_is_not_accepted(server, keys, clerk, mesh):
    bank = bank_of(server.url, keys["bank"], signatures="require")
    bank.register("clerk", clerk, Ask)
    async with bank:
        await met(bank, "bank.clerk")
        with pytest.raises(InvalidInput, match="not accepted"):
            await mesh.call("bank.clerk", {"message": "x"})
    assert refusals(bank) == {"unsigned": 1}
    assert clerk.senders == []
