/** How a reply takes its parts: reasoning, tool calls, citations, steps. Part of the reducer: pure functions. */

import { decide, isUndecided } from "./approvals.js";
import type { PartFrame, ReplyLog, WithParts } from "./frames.js";
import {
  isTruncated,
  PART_FIELDS,
  parsePart,
  shown,
  withEvent,
  withSnapshot,
  type PartLog,
  type ToolState,
} from "./parts.js";
import { measured, noted, unplacedFrom } from "./places.js";
import { isOpen, type Answer, type PartRules, type Reply } from "./reply.js";

const WORKING: readonly ToolState[] = ["called", "approved", "running"];

/** The rules for all parts; for the `parts` option of a chat. */
export const parts: PartRules = {
  fields: PART_FIELDS,
  parse,
  take,
  cover,
  coverLog: (reply, log) => withPlaces(cover(reply, log), log),
  amend: (reply, log) => withPlaces(amend(reply, log), log),
  noted,
  answered: (reply, call, answer: Answer) =>
    standing({ ...reply, answers: { ...reply.answers, [call]: answer } }),
  wantedFrom: (reply) => unplacedFrom(reply) ?? (isTruncated(reply.log) ? reply.nextIndex : null),
  lackedFrom,
  isAtWork: (reply) =>
    reply.parts.some((part) => part.type === "tool" && WORKING.includes(part.state)),
  isCut: (log) => log.parts?.some((part) => part.truncated) ?? false,
  isOld: (reply, log) => log.nextIndex < reply.nextIndex || (log.offset ?? 0) < reply.log.offset,
  decide,
};

const withPlaces = (reply: Reply, { nextIndex, tokens }: ReplyLog): Reply =>
  measured(reply, nextIndex - tokens.length, tokens);

/** With each part checked: a newer server may add some that are not known here. */
function parse(fields: object): object {
  if (!("parts" in fields)) return fields;
  const known = (fields.parts as unknown[]).map((part) => parsePart(part));
  return { ...fields, parts: known.filter((part) => part !== null) };
}

function take(reply: Reply, frame: PartFrame, at: number): Reply {
  const next = withLog(reply, withEvent(reply.log, frame));
  const last = next.parts.at(-1);
  if (next === reply || last?.type !== "reasoning" || frame.type !== "reasoning.received")
    return next;
  const start = last.offset === frame.offset ? at : next.spans[last.offset]?.[0];
  if (start === undefined) return next; // a snapshot brought its beginning
  return { ...next, spans: { ...next.spans, [last.offset]: [start, at] } };
}

function cover(reply: Reply, { offset, parts: all = [] }: WithParts | ReplyLog): Reply {
  if (offset === undefined) return reply; // nothing but text
  return withLog(reply, withSnapshot(reply.log, offset, all));
}

function amend(reply: Reply, log: ReplyLog): Reply {
  const { offset, events, isUnread } = reply.log;
  if (!isTruncated(reply.log)) return reply;
  // Its text is from the database: only now it is known how many tokens it has.
  const isSame = isUnread && log.tokens.join("") === reply.text;
  const nextIndex = isSame ? log.nextIndex : reply.nextIndex;
  return cover({ ...reply, nextIndex, log: { offset, events } }, log);
}

function withLog(reply: Reply, log: PartLog): Reply {
  if (log === reply.log) return reply;
  return standing(noted({ ...reply, log, parts: shown(log, reply.log, reply.parts) }));
}

/** The status that follows from what there is besides text. */
function standing(reply: Reply): Reply {
  if (!isOpen(reply)) return reply;
  const { parts: all, status } = reply;
  if (all.some((part) => part.type === "tool" && isUndecided(reply, part)))
    return { ...reply, status: "waiting" };
  return all.length > 0 || status === "waiting" ? { ...reply, status: "streaming" } : reply;
}

function lackedFrom(before: Reply, after: Reply): number | null {
  const from = unplacedFrom(after);
  if (from !== null) return unplacedFrom(before) === null ? from : null;
  if (after.log.offset === before.log.offset) return null; // no snapshot
  return isTruncated(after.log) && !isTruncated(before.log) ? after.nextIndex : null;
}
