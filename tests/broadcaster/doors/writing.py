"""The worker's side of messages that a door has queued."""

from __future__ import annotations

from legato.protocol import wire
from legato.protocol.jobs import decode_job
from legato.worker.replies.log import TokenLog
from tests.broadcaster.replies.test_healing import CHANNEL, Writer


async def jobs(redis):
    return [decode_job(fields[b"job"]) for _, fields in await redis.xrange(wire.jobs_key("ai-streaming"))]


async def written(redis):
    """The worker of the newest job."""
    job = (await jobs(redis))[-1]
    writer = Writer(redis, job.message_id)
    writer.job = job
    writer.log = TokenLog(redis, tries=9, retention=3600).open(job, "claim")
    return await writer.begin()


async def cancelled(redis, message_id):
    return await redis.hget(wire.message_key("1", CHANNEL, message_id), "cancel") == b"1"
