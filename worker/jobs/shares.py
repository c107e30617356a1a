"""Who gets how much of the workers, where admission is fair: weights and maxima."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.worker.config import Worker


class Shares(NamedTuple):
    """As the scripts take them.

    :ivar per_user: maximum jobs of a user that are claimed at once; 0: none.
    :ivar per_tenant: the same of a tenant without its own.
    :ivar of_tenants: JSON ``{tenant: [weight, maximum]}`` of tenants that have their own.
    :ivar of_users: JSON ``{user: weight}`` of users that have their own, in any application.
    """

    per_user: int = 0
    per_tenant: int = 0
    of_tenants: bytes = b"{}"
    of_users: bytes = b"{}"

    @classmethod
    def of(cls, worker: Worker) -> Shares:
        """The shares in the settings."""
        return cls(
            worker.max_per_user,
            worker.max_per_tenant,
            _own(worker.tenant_weights, worker.tenant_limits, worker.max_per_tenant),
            msgspec.json.encode(worker.user_weights),
        )


def _own(weights: Mapping[str, int], limits: Mapping[str, int], most: int) -> bytes:
    named = sorted({*weights, *limits})
    return msgspec.json.encode({name: [weights.get(name, 1), limits.get(name, most)] for name in named})
