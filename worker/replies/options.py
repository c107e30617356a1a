"""What a job asks of the model besides an answer to its text, as a provider takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from legato.worker.providers import base

if TYPE_CHECKING:
    from legato.protocol.jobs import AttachedFile, Job, ThinkingBudget

_PDF = "application/pdf"


def with_options(request: base.ProviderRequest, job: Job) -> base.ProviderRequest:
    """The request with the options and the attachments of the job; the same one if it has none."""
    options = overlay(request.options, job)
    if options is request.options and not job.attachments:
        return request
    return request._replace(options=options, attachments=tuple(map(_attachment, job.attachments)))


def overlay(options: base.RequestOptions, job: Job) -> base.RequestOptions:
    """The options with those that the job has; what it does not mention stays."""
    asked = {
        name: value for name in ("model", "system", "max_tokens") if (value := getattr(job, name)) is not None
    }
    if job.thinking is not None:
        asked["thinking"] = _thinking(job.thinking)
    return msgspec.structs.replace(options, **asked) if asked else options


def _thinking(asked: bool | ThinkingBudget) -> base.Thinking | None:
    if isinstance(asked, bool):
        return base.Thinking() if asked else None
    return base.Thinking(asked.budget_tokens)


def _attachment(file: AttachedFile) -> base.Attachment:
    media_type = file.media_type or (_PDF if file.type == "document" else "")
    return base.Attachment(media_type, file.url or "", file.data or "", file.title)
