"""The limit on failed attempts of one address, such as requests with a wrong token."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .allowances import Allowances
    from .refusals import AddressRefusals


class FailureLimit:
    """Refuses further attempts of an address that has failed too often, right or wrong.

    :param name: the setting's name without ``server.``.
    """

    def __init__(self, name: str, allowances: Allowances, refusals: AddressRefusals) -> None:
        self._name = name
        self._allowances = allowances
        self._refusals = refusals

    def refuses(self, address: str) -> int:
        """Whole seconds until the address may try again; 0 if it may now. What is not 0 is counted."""
        wait = self._allowances.wait(address)
        if not wait:
            return 0
        self._refusals.note(self._name, address)
        return ceil(wait)

    def failed(self, address: str) -> None:
        """An attempt of the address has failed."""
        self._allowances.take(address)
