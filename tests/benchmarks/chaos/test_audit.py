"""The auditor: nothing in a right record, and every single fault in one that was spoilt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.benchmarks.chaos.audit import CANCEL_SLACK, audit
from legato.benchmarks.chaos.findings import KINDS, PLACES
from legato.benchmarks.chaos.live import SLACK, WELCOME
from legato.benchmarks.chaos.record import Disconnected, Frame, ReaderRecord, Rules, Subscribed, TurnRow
from legato.benchmarks.chaos.script import ReplyScript
from tests.benchmarks.chaos import right
from tests.benchmarks.chaos.right import ID, KEPT, LOG, ROWS, SENT, WORDS, record, steady


def kinds(spoilt) -> set[tuple[str, str]]:
    verdict = audit(spoilt)
    assert {finding.kind for finding in verdict.findings} <= set(KINDS)
    assert {finding.place for finding in verdict.findings} <= set(PLACES)
    assert not (verdict.findings and verdict.clean)
    return {(finding.kind, finding.place) for finding in verdict.findings}


def test_a_right_record_is_clean():
    verdict = audit(record())
    assert (verdict.clean, list(verdict.findings)) == (True, [])
    assert verdict.figures["frames"] == WORDS + 4 + 5 + 3


def test_a_run_in_which_nothing_happened_is_not_clean():
    assert not audit(record(ReaderRecord("7/0", "7", 0, []), kept=replace(KEPT, state="failed"))).clean
    silent = replace(record(), sent=[], kept={}, readers=[ReaderRecord("7/0", "7", 0, [])])
    verdict = audit(silent)
    assert not verdict.findings
    assert not verdict.clean


# --- live: one thing wrong in what a steady reader got


@given(st.integers(0, WORDS - 1))
def test_a_frame_that_is_missing_is_a_gap_and_a_lost_token(index):
    reader = steady()
    entries = [entry for entry in reader.entries if entry != right.token(index)]
    assert kinds(record(replace(reader, entries=entries))) == {("gap", "live"), ("lost", "whole")}


@given(st.integers(0, WORDS - 1), st.data())
def test_a_frame_that_comes_twice_is_found_wherever_it_comes_again(index, data):
    entries = list(steady().entries)
    entries.insert(data.draw(st.integers(index + 2, len(entries))), right.token(index))
    assert ("repeated", "live") in kinds(record(replace(steady(), entries=entries)))


@given(st.integers(1, WORDS - 1), st.data())
def test_a_frame_that_comes_late_is_found_although_the_text_is_whole(index, data):
    entries = list(steady().entries)
    frame = entries.pop(index)
    entries.insert(data.draw(st.integers(index + 1, len(entries))), frame)
    found = kinds(record(replace(steady(), entries=entries)))
    assert ("reordered", "live") in found
    assert not any(place == "whole" for _, place in found)


@given(st.integers(0, WORDS - 1), st.text(max_size=8))
def test_a_text_that_is_not_the_logs_is_forged(index, text):
    if text == LOG[index]:
        return
    entries = list(steady().entries)
    frame = right.token(index)
    entries[index + 1] = replace(frame, data=frame.data | {"token": text})
    assert ("forged", "live") in kinds(record(replace(steady(), entries=entries)))


TERMINALS = {
    "another": Frame(4.0, "stream.cancelled", {"messageId": ID, "totalTokens": WORDS}),
    "another total": Frame(4.0, "stream.completed", {"messageId": ID, "totalTokens": WORDS - 1}),
    "a failure": Frame(4.0, "stream.failed", {"messageId": ID, "code": "timeout", "partial": True}),
}


@pytest.mark.parametrize("terminal", TERMINALS.values(), ids=TERMINALS)
def test_a_terminal_event_that_was_not_decided_is_a_wrong_ending(terminal):
    entries = [*steady().entries[:-1], terminal]
    assert ("wrong ending", "live") in kinds(record(replace(steady(), entries=entries)))


def test_no_terminal_event_is_a_missing_ending_for_who_stayed():
    reader = replace(steady(), entries=steady().entries[:-1])
    assert kinds(record(reader)) == {("missing ending", "live"), ("missing ending", "whole")}


def test_a_terminal_event_twice_is_a_doubled_ending_also_over_two_subscriptions():
    again = [*steady().entries, right.completed()]
    assert ("doubled ending", "live") in kinds(record(replace(steady(), entries=again)))
    back = [*steady().entries, Disconnected(4.2), Subscribed(4.3), right.completed(4.4)]
    assert ("doubled ending", "live") in kinds(record(replace(steady(), entries=back)))


def test_what_is_of_another_user_or_of_nobody_is_forged():
    foreign = Frame(3.0, "token.received", {"messageId": "m2", "token": "w0 ", "tokenIndex": 0, "userId": 7})
    frame = right.token(0)
    wrong_user = replace(frame, data=frame.data | {"userId": 8})
    for entry in (foreign, Frame(3.0, "stream.sung", {"messageId": ID})):
        assert ("forged", "live") in kinds(record(replace(steady(), entries=[*steady().entries, entry])))
    entries = [steady().entries[0], wrong_user, *steady().entries[2:]]
    assert kinds(record(replace(steady(), entries=entries))) == {("forged", "live")}


def test_a_frame_without_a_subscription_is_found():
    entries = [right.token(0), *steady().entries]
    assert ("reordered", "live") in kinds(record(replace(steady(), entries=entries)))


def test_a_hole_is_a_violation_although_the_reader_read_it_up():
    entries = [entry for entry in [*steady().entries, right.read()] if entry != right.token(5)]
    assert kinds(record(replace(steady(), entries=entries))) == {("gap", "live")}
    silent = [*steady().entries[:-1], right.read()]
    assert kinds(record(replace(steady(), entries=silent))) == {("missing ending", "live")}


def test_a_subscription_that_ended_is_held_to_its_end_when_a_later_message_was_seen():
    later = replace(SENT, id="m2", script=ReplyScript(1, 20), at=4.2, ended=4.6)
    frames = [
        Frame(4.3, "token.received", {"messageId": "m2", "userId": 7, "token": "w0 ", "tokenIndex": 0}),
        Frame(4.4, "stream.completed", {"messageId": "m2", "userId": 7, "totalTokens": 1}),
    ]
    rows = (TurnRow("user", later.script.line, "complete"), TurnRow("assistant", "w0 ", "complete"))
    kept = replace(KEPT, next=1, log=("w0 ",), rows=rows)

    def both(entries, closed=4.4 + SLACK):
        reader = replace(steady(), entries=[*entries, *frames, right.read(), Disconnected(closed)])
        return replace(record(reader), sent=[SENT, later], kept={ID: KEPT, "m2": kept})

    assert kinds(both(steady().entries)) == set()
    assert kinds(both(steady().entries[:-2])) == {("gap", "live"), ("missing ending", "live")}
    assert kinds(both(steady().entries[:-2], closed=4.2 + SLACK)) == set()


@given(st.integers(1, 3))
def test_a_snapshot_has_to_cover_what_is_not_sent(count):
    """Frames that follow a snapshot begin where it ends at the latest."""
    first = [Subscribed(2.65), right.snapshot(8, 2.75)]
    entries = [*first, *map(right.token, range(8 + count, WORDS)), right.completed(), right.read()]
    assert kinds(record(ReaderRecord("7/1", "7", 1, entries))) == {("gap", "live")}


def test_a_snapshot_that_never_comes_is_a_gap():
    sent = replace(SENT, ended=2.65 + WELCOME + 1)
    entries = [Subscribed(2.65), *map(right.token, range(7, WORDS)), right.completed(), right.read()]
    assert kinds(record(ReaderRecord("7/1", "7", 1, entries), sent=sent)) == {("gap", "live")}


def test_a_snapshot_with_another_text_is_forged():
    entries = list(right.returning().entries)
    at = next(n for n, entry in enumerate(entries) if isinstance(entry, Frame) and "text" in entry.data)
    entries[at] = replace(entries[at], data=entries[at].data | {"text": "x"})
    assert ("forged", "live") in kinds(record(replace(right.returning(), entries=entries)))


# --- whole


def test_who_came_back_and_never_read_up_has_lost_the_end():
    entries = right.late().entries[:-1]
    found = kinds(record(steady(), replace(right.late(), entries=entries)))
    assert found == {("lost", "whole"), ("missing ending", "whole")}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"tokens": list(LOG[4:])}, "lost"),
        ({"text": "x"}, "forged"),
        ({"status": "cancelled"}, "wrong ending"),
        ({"text": "".join(LOG[:-1]), "tokens": list(LOG[:-1]), "nextIndex": WORDS - 1}, "lost"),
    ],
)
def test_an_answer_that_is_not_so_is_found(fields, kind):
    answer = right.read()
    entries = [*right.late().entries[:-1], replace(answer, body=answer.body | fields)]
    assert (kind, "whole") in kinds(record(steady(), replace(right.late(), entries=entries)))


# --- log, database, queue


@given(st.integers(0, WORDS - 1))
def test_a_log_that_lacks_a_word(index):
    log = LOG[:index] + LOG[index + 1 :]
    assert ("lost", "log") in kinds(record(kept=replace(KEPT, log=log, next=WORDS - 1)))


@given(st.integers(0, WORDS - 1), st.integers(0, WORDS))
def test_a_log_that_has_a_word_twice(index, at):
    log = (*LOG[:at], LOG[index], *LOG[at:])
    assert ("repeated", "log") in kinds(record(kept=replace(KEPT, log=log, next=WORDS + 1)))


@given(st.integers(0, WORDS - 2))
def test_a_log_with_two_words_changed_over(index):
    log = (*LOG[:index], LOG[index + 1], LOG[index], *LOG[index + 2 :])
    assert ("reordered", "log") in kinds(record(kept=replace(KEPT, log=log)))


@pytest.mark.parametrize("text", ["w12 ", "x", "w1", "w01 "])
def test_a_log_with_what_the_script_does_not_say(text):
    assert ("forged", "log") in kinds(record(kept=replace(KEPT, log=(*LOG, text), next=WORDS + 1)))


def test_a_log_and_its_count_agree():
    assert ("lost", "log") in kinds(record(kept=replace(KEPT, next=WORDS + 1)))


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"state": "streaming"}, ("missing ending", "log")),
        ({"decided": ""}, ("wrong ending", "log")),
        ({"decided": "cancelled"}, ("wrong ending", "log")),
        ({"state": "cancelled", "decided": "cancelled"}, ("wrong ending", "log")),
        ({"state": "failed", "decided": "failed", "code": "internal"}, ("wrong ending", "log")),
        ({"rows": ROWS[:1]}, ("lost", "database")),
        ({"rows": ROWS[1:]}, ("lost", "database")),
        ({"rows": (*ROWS, ROWS[1])}, ("repeated", "database")),
        ({"rows": (ROWS[0], replace(ROWS[1], status="failed"))}, ("wrong ending", "database")),
        ({"rows": (ROWS[0], replace(ROWS[1], content="w0 "))}, ("lost", "database")),
        ({"rows": (ROWS[0], replace(ROWS[1], content="x"))}, ("forged", "database")),
    ],
)
def test_what_is_kept_has_to_be_right(fields, found):
    assert found in kinds(record(kept=replace(KEPT, **fields)))


def test_what_nobody_settles_is_left_over_and_what_nobody_sent_is_forged():
    assert kinds(replace(record(), jobs_left=1)) == {("left over", "queue")}
    assert kinds(replace(record(), dead={ID: "claimed too often"})) == {("left over", "queue")}
    rows = (ROWS[0], replace(ROWS[1], status="failed"))
    fields = {"state": "failed", "decided": "failed", "code": "interrupted", "rows": rows}
    for attempt, found in ((2, {("left over", "queue")}), (3, set())):
        spent = replace(KEPT, attempt=attempt, **fields)
        assert kinds(replace(record(kept=spent), readers=[], dead={ID: "claimed too often"})) == found
    assert kinds(replace(record(), strangers=["m9"])) == {("forged", "log")}
    assert ("lost", "log") in kinds(replace(record(), kept={}))


def test_a_cancel_that_was_accepted_is_heeded():
    long = ReplyScript(CANCEL_SLACK + 10, 20)
    log = tuple(f"w{index} " for index in range(long.tokens))
    rows = (TurnRow("user", long.line, "complete"), TurnRow("assistant", "".join(log), "complete"))
    kept = replace(KEPT, next=len(log), log=log, rows=rows)
    for index, found in ((9, {("wrong ending", "log")}), (10, set())):
        sent = replace(SENT, script=long, cancel_index=index)
        seen = replace(record(kept=kept, sent=sent), readers=[])
        assert kinds(seen) == found


ENDS = [
    # script, continues, attempts, state, code: may it end so?
    (ReplyScript(9, 1), True, 1, "complete", "", True),
    (ReplyScript(9, 1), True, 1, "failed", "interrupted", False),
    (ReplyScript(9, 1), True, 2, "failed", "interrupted", True),
    (ReplyScript(9, 1), False, 2, "failed", "interrupted", True),
    (ReplyScript(9, 1, "eof", 3), True, 2, "complete", "", True),
    (ReplyScript(9, 1, "eof", 3), True, 1, "failed", "interrupted", False),
    (ReplyScript(9, 1, "eof", 3), False, 1, "failed", "interrupted", True),
    (ReplyScript(9, 1, "eof", 3), False, 1, "complete", "", False),
    (ReplyScript(9, 1, "overloaded", 0), True, 1, "failed", "overloaded", True),
    (ReplyScript(9, 1, "overloaded", 3, always=True), True, 1, "failed", "overloaded", True),
    (ReplyScript(9, 1, "overloaded", 3, always=True), True, 2, "complete", "", False),
    (ReplyScript(9, 1, "refusal", 3), True, 1, "complete", "", False),
    (ReplyScript(9, 1, "refusal", 3), True, 2, "complete", "", True),
    (ReplyScript(9, 1, "refusal", 3), True, 1, "failed", "refusal", True),
    (ReplyScript(9, 1, "refusal", 3), True, 1, "failed", "timeout", False),
]


@pytest.mark.parametrize(("script", "continues", "attempts", "state", "code", "may"), ENDS)
def test_a_reply_ends_only_as_its_script_allows(script, continues, attempts, state, code, may):
    log = tuple(f"w{index} " for index in range(9 if state == "complete" else script.fail_at))
    rows = (TurnRow("user", script.line, "complete"), TurnRow("assistant", "".join(log), state))
    kept = replace(
        KEPT, state=state, code=code, decided=state, attempt=attempts, log=log, next=len(log), rows=rows
    )
    rules = Rules(continues=continues, tries=2)
    seen = replace(record(kept=kept, sent=replace(SENT, script=script), rules=rules), readers=[])
    assert kinds(seen) == (set() if may else {("wrong ending", "log")})
