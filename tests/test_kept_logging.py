"""What a test does to logging ends with it."""

from __future__ import annotations

import logging

from legato.deploy import logs
from legato.protocol.settings import Log
from tests.kept_logging import SET_BY_IMPORTS, kept_logging

NAMES = (None, "legato", "other", "brand.new")


def levels() -> list[int]:
    return [logging.getLogger(name).level for name in NAMES if name != "brand.new"]


def test_levels_and_handlers_are_as_before():
    logging.getLogger("other").setLevel(logging.ERROR)
    before, handlers = levels(), list(logging.getLogger().handlers)
    with kept_logging():
        logs.configure(Log("debug"))
        for name in NAMES:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        assert levels() != before
        assert logging.getLogger().handlers != handlers
    assert levels() == before
    assert logging.getLogger("brand.new").level == logging.NOTSET
    assert logging.getLogger().handlers == handlers


def test_the_tests_before_have_left_nothing():
    assert logging.getLogger("legato").level == logging.NOTSET
    assert logging.getLogger("other").level == logging.NOTSET


def test_what_an_import_has_set_stays():
    for name in SET_BY_IMPORTS:
        logger = logging.getLogger(name)
        before = logger.level
        with kept_logging():
            logger.setLevel(logging.CRITICAL)
        assert logger.level == logging.CRITICAL
        logger.setLevel(before)
