"""What a job asks of the model besides an answer, and on which channel its reply goes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from legato.protocol import wire
from legato.protocol.jobs import AttachedFile, ThinkingBudget
from legato.worker.providers import base
from legato.worker.replies.log import Claim
from legato.worker.replies.options import overlay, with_options
from legato.worker.replies.reply import Reply
from legato.worker.replies.runner import Outcome
from tests.worker.replies.test_runner import Stage, spoken, stage
from tests.worker.support import STARTED, Ears, Puppet, keys, logged, make_job

__all__ = ["stage"]

PNG = AttachedFile("image", "image/png", data="iVBORw==", title="A dot")
PDF = AttachedFile("document", url="https://example.com/a.pdf")

OPTIONS: list[tuple[dict[str, Any], base.RequestOptions]] = [
    ({"model": "claude-x"}, base.RequestOptions(model="claude-x")),
    ({"system": "Be brief."}, base.RequestOptions(system="Be brief.")),
    ({"system": ""}, base.RequestOptions(system="")),
    ({"max_tokens": 100}, base.RequestOptions(max_tokens=100)),
    ({"thinking": True}, base.RequestOptions(thinking=base.Thinking())),
    ({"thinking": False}, base.PLAIN),
    ({"thinking": ThinkingBudget(2048)}, base.RequestOptions(thinking=base.Thinking(2048))),
    ({"agent": "support", "metadata": {"secret": 1}, "reply_channel": "private-team.1"}, base.PLAIN),
]


@pytest.mark.parametrize(("fields", "options"), OPTIONS)
def test_the_model_is_asked_as_the_job_says(fields: dict[str, Any], options: base.RequestOptions) -> None:
    asked = Reply(make_job(**fields), Claim("run", 1, 0, b""), model="m").request()
    assert asked == base.ProviderRequest("Hello", options=options, message_id="m1")


def test_a_job_says_what_its_agent_leaves_to_it() -> None:
    answer = Reply(make_job(max_tokens=7), Claim("run", 1, 0, b""), model="m")
    answer.options = base.RequestOptions("agents", "Be kind.", 1000)
    assert answer.request().options == base.RequestOptions("agents", "Be kind.", 7)


def test_the_request_of_a_plain_job_is_left_alone() -> None:
    request = base.ProviderRequest("Hello")
    assert with_options(request, make_job()) is request
    assert with_options(request, make_job(agent="a", metadata={"a": 1})) is request


def test_a_job_overrides_what_it_mentions_and_nothing_else() -> None:
    agents = base.RequestOptions("a", "s", 5, base.Thinking(9), extra={"top_k": 1})
    assert overlay(agents, make_job()) is agents
    assert overlay(agents, make_job(model="b")) == base.RequestOptions(
        "b", "s", 5, base.Thinking(9), extra={"top_k": 1}
    )
    assert overlay(agents, make_job(thinking=False)).thinking is None


def test_attachments_go_along_with_their_type() -> None:
    asked = with_options(base.ProviderRequest("Hello"), make_job(attachments=(PNG, PDF)))
    assert asked.attachments == (
        base.Attachment("image/png", data="iVBORw==", title="A dot"),
        base.Attachment("application/pdf", url="https://example.com/a.pdf"),
    )
    picture = AttachedFile("image", url="https://example.com/a")
    (linked,) = with_options(base.ProviderRequest("Hello"), make_job(attachments=(picture,))).attachments
    assert linked == base.Attachment(url="https://example.com/a")


TEAM = make_job(reply_channel="private-team.1", model="other", attachments=(PNG,))


async def test_a_reply_on_a_channel_of_its_own_is_published_logged_and_persisted(stage: Stage) -> None:
    puppet = Puppet(*spoken("Hel", "lo"))
    async with Ears(stage.redis, make_job()) as users, Ears(stage.redis, TEAM) as team:
        assert await stage.answer(puppet, TEAM) is Outcome.DONE
        await team.all()
        await users.all()
    assert [event for event, _ in team.heard][::3] == ["stream.started", "stream.completed"]
    assert team.tokens == await logged(stage.redis, TEAM) == ["Hel", "lo"]
    assert {opened(envelope) for envelope in team.envelopes} == {"private-team.1"}
    assert users.heard == []
    assert await stage.redis.hget(keys(TEAM)[0], "state") == b"complete"
    assert await stage.redis.hget(keys(TEAM)[0], "user") == b"7"
    assert not await stage.redis.exists(*keys(make_job()))
    assert stage.turns() == [("user", "Hello", "complete"), ("assistant", "Hello", "complete")]


def opened(envelope: wire.Envelope) -> str:
    """The channel that the frame names."""
    channel: str = msgspec.json.decode(envelope.payload)["channel"]
    return channel


async def test_every_attempt_has_the_options_and_the_attachments(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.Text("Hel"), base.CutError("gone"), *spoken("lo"))
    assert await stage.answer(puppet, TEAM) is Outcome.DONE
    first, second = puppet.asked
    assert second.continuation
    for asked in (first, second):
        assert asked.options == base.RequestOptions(model="other")
        assert asked.attachments == (base.Attachment("image/png", data="iVBORw==", title="A dot"),)


@pytest.mark.parametrize("way", ["flag", "field"])
async def test_a_reply_on_a_channel_of_its_own_can_be_cancelled(stage: Stage, way: str) -> None:
    if way == "flag":
        await stage.redis.set(wire.cancel_flags(TEAM.message_id)[0], "1")
    else:
        await stage.redis.hset(keys(TEAM)[0], "cancel", "1")  # type: ignore[misc]
    puppet = Puppet()
    async with Ears(stage.redis, TEAM) as ears:
        assert await stage.answer(puppet, TEAM) is Outcome.DONE
        assert await ears.until("stream.cancelled")
    assert puppet.asked == []
