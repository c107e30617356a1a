/** One reply, and how it takes what the server says of it. Part of the reducer: pure functions. */

import type { Api, HistoryItem } from "./api.js";
import { failure, FAILED_TEXT, type ErrorKind } from "./errors.js";
import {
  TEXT_PARSER,
  type Frame,
  type PartFrame,
  type PartParser,
  type ReplyLog,
  type ServerStatus,
  type WithParts,
} from "./frames.js";
import type { Part, PartLog, Usage } from "./parts.js";

/** `unsent`: it was not asked for yet. `waiting`: a tool call waits for the user's decision. */
export type Status =
  "unsent" | "thinking" | "streaming" | "waiting" | "complete" | "failed" | "cancelled";

/** Further options of a message for the server, such as `attachments`. */
export type MessageOptions = Readonly<Record<string, unknown>>;

/** Where a turn stands in a conversation that the server keeps; nothing of it in any other. */
export interface Place {
  readonly conversation?: string | undefined;
  /** The turn that it follows: its message id, or its key while it has none. Empty for the first; absent if unknown. */
  readonly parent?: string | undefined;
  /** Which one of its siblings it is, from 1; absent if it has none. Set in what a snapshot shows. */
  readonly branch?: Branch | undefined;
}

export interface Branch {
  readonly index: number;
  readonly count: number;
}

export interface UserTurn extends Place {
  readonly role: "user";
  readonly key: string;
  readonly text: string;
  readonly options?: MessageOptions;
  /** In a conversation that the server keeps: the message's id, once it is known. */
  readonly messageId?: string | undefined;
}

/** A request whose answer is not there yet. Repeated, it must be the same to the byte. */
export interface PendingRequest {
  /** The `Idempotency-Key`. */
  readonly id: string;
  readonly history: readonly HistoryItem[];
  /** What the request has instead of a history if the server keeps the conversation. */
  readonly to?: object | undefined;
}

/**
 * What the user decided about a tool call here. `sent`: the server has it. `failed`: it has not, and the user may
 * try again. `taken`: it was decided already, by somebody else or in time.
 */
export interface Answer {
  readonly approve: boolean;
  readonly state: "sending" | "sent" | "failed" | "taken";
  readonly error: string;
}

export interface Reply extends Place {
  readonly role: "assistant";
  /** Made by the client, stable for ever: what a list is keyed by. */
  readonly key: string;
  /** Null once it was answered. Kept when the answer was lost, so that it can be repeated. */
  readonly request: PendingRequest | null;
  /** The server's id; null until the request is answered. */
  readonly messageId: string | null;
  readonly status: Status;
  readonly text: string;
  /** The number of tokens in `text`, which is the index of the next one. */
  readonly nextIndex: number;
  /** Tokens that came before their turn, by index, with their number; all are above `nextIndex`. */
  readonly held: Readonly<Record<number, readonly [token: string, count: number]>>;
  /** There are at least as many tokens. */
  readonly seen: number;
  /** How many tokens the whole reply has; null until the server has said so. */
  readonly totalTokens: number | null;
  /** What there is besides text, in order; `tokenIndex` says where in the text. */
  readonly parts: readonly Part[];
  /** The events that `parts` are made of. */
  readonly log: PartLog;
  /** `tokenIndex` of a part → the characters of `text` before it. */
  readonly cuts: Readonly<Record<number, number>>;
  /** `offset` of a reasoning part that came live → the times of its first and last piece. */
  readonly spans: Readonly<Record<number, readonly [number, number]>>;
  /** By call. */
  readonly answers: Readonly<Record<string, Answer>>;
  readonly model: string | null;
  /** What it cost, once it is complete and if the server says so. */
  readonly usage: Usage | null;
  /** Why it failed, for people. */
  readonly error: string | null;
  readonly errorKind: ErrorKind | null;
  /** Milliseconds, of whatever clock `at` is read from. */
  readonly startedAt: number;
  readonly endedAt: number | null;
}

// A token above MAX_HELD is dropped; the refetch brings it.
export const MAX_HELD = 1000;

export const NO_PARTS: PartLog = { offset: 0, events: [] };

/** What runs an approval: the conversation. */
export interface Host {
  readonly api: Api;
  find(messageId: string): Reply | undefined;
  /** Note what was decided, or what became of it. */
  answered(messageId: string, call: string, answer: Answer): void;
  refetch(key: string): Promise<void>;
}

/** How a reply takes what it has besides text. Without these rules, of `legato-client/parts`, it has text alone. */
export interface PartRules extends PartParser {
  /** Take one part. */
  take(reply: Reply, frame: PartFrame, at: number): Reply;
  /** Take the parts of a snapshot or a log. */
  cover(reply: Reply, all: WithParts): Reply;
  /** Take the parts of a log whose tokens were taken, and note where those end. */
  coverLog(reply: Reply, log: ReplyLog): Reply;
  /** Tell a reply that has ended what a snapshot left out. */
  amend(reply: Reply, log: ReplyLog): Reply;
  /** Note that the text ends here now. */
  noted(reply: Reply): Reply;
  answered?(reply: Reply, call: string, answer: Answer): Reply;
  /** The index from which on tokens have to be read because of the parts alone; null for none. */
  wantedFrom(reply: Reply): number | null;
  /** The same, if a snapshot has just made it so. */
  lackedFrom(before: Reply, after: Reply): number | null;
  /** True while a tool works, which may take longer than a model is ever silent. */
  isAtWork(reply: Reply): boolean;
  /** True for a log of which another answer would be no better. */
  isCut(log: ReplyLog): boolean;
  /** True for a log from before a snapshot that came meanwhile. Asked once, since a log may have lost what is known. */
  isOld(reply: Reply, log: ReplyLog): boolean;
  decide?(
    host: Host,
    messageId: string,
    call: string,
    approve: boolean,
    note: string,
  ): Promise<void>;
}

const same = (reply: Reply): Reply => reply;
const none = (): null => null;
const no = (): boolean => false;

export const TEXT_ONLY: PartRules = {
  ...TEXT_PARSER,
  take: same,
  cover: same,
  coverLog: same,
  amend: same,
  noted: same,
  wantedFrom: none,
  lackedFrom: none,
  isAtWork: no,
  isCut: no,
  isOld: no,
};

export function fresh(key: string, request: PendingRequest | null, at: number): Reply {
  return {
    role: "assistant",
    key,
    request,
    messageId: null,
    status: "thinking",
    text: "",
    nextIndex: 0,
    held: {},
    seen: 0,
    totalTokens: null,
    parts: [],
    log: NO_PARTS,
    cuts: {},
    spans: {},
    answers: {},
    model: null,
    usage: null,
    error: null,
    errorKind: null,
    startedAt: at,
    endedAt: null,
  };
}

const ENDED: readonly Status[] = ["complete", "failed", "cancelled"];

/** True while more is to come for this reply. */
export const isOpen = (reply: Reply): boolean => !ENDED.includes(reply.status);

/** The first index that is missing although something behind it is known, or null. */
export function missingFrom(reply: Reply): number | null {
  const { nextIndex, seen, totalTokens, parts } = reply;
  const isBehind =
    Math.max(seen, totalTokens ?? 0) > nextIndex ||
    parts.some((part) => part.tokenIndex > nextIndex);
  return isOpen(reply) && isBehind ? nextIndex : null;
}

/** Apply one frame to the reply that it is about; one that has ended stays as it is. */
export function take(reply: Reply, frame: Frame, at: number, parts: PartRules): Reply {
  if (!isOpen(reply)) return reply;
  switch (frame.type) {
    case "stream.started":
      return { ...reply, model: frame.model };
    case "token.received":
      return settle(
        takeToken(reply, frame.tokenIndex, frame.token, parts, frame.tokenCount),
        at,
        parts,
      );
    case "stream.completed":
      return settle(
        { ...reply, totalTokens: frame.totalTokens, usage: frame.usage ?? null },
        at,
        parts,
      );
    case "stream.failed":
      return end(reply, "failed", at, failure(frame.error, frame.code));
    case "stream.cancelled":
      return end(reply, "cancelled", at);
    case "stream.snapshot": {
      const known = parts.cover(takeSnapshot(reply, frame.text, frame.nextIndex), frame);
      return takeStatus(known, frame, at, parts);
    }
    default:
      return parts.take(reply, frame, at);
  }
}

/** Apply an answer of `GET /api/chat/{id}`. It tells a reply that has ended what a snapshot left out, and no more. */
export function takeLog(reply: Reply, log: ReplyLog, at: number, parts: PartRules): Reply {
  if (!isOpen(reply)) return parts.amend(reply, log);
  const first = log.nextIndex - log.tokens.length;
  const filled = log.tokens.reduce(
    (now, token, offset) => takeToken(now, first + offset, token, parts),
    reply,
  );
  return takeStatus(parts.coverLog(filled, log), log, at, parts);
}

/** Why a reply failed. */
interface Why {
  readonly kind?: ErrorKind | null;
  readonly error?: string | null;
}

export function end(
  reply: Reply,
  status: "complete" | "failed" | "cancelled",
  at: number,
  { error = null, kind: errorKind = null }: Why = {},
): Reply {
  return { ...reply, status, error, errorKind, held: {}, endedAt: at };
}

/** Take a token, or several in one. One of which a part is known already is left out, and read again. */
function takeToken(reply: Reply, index: number, token: string, parts: PartRules, count = 1): Reply {
  const { nextIndex, held } = reply;
  const end = index + count;
  if (end <= nextIndex) return reply;
  if (index === nextIndex) return appended(reply, token, count, parts);
  const isLost = index < nextIndex || index in held || Object.keys(held).length >= MAX_HELD;
  return {
    ...reply,
    seen: Math.max(reply.seen, end),
    held: isLost ? held : { ...held, [index]: [token, count] },
  };
}

const appended = (reply: Reply, token: string, count: number, parts: PartRules): Reply =>
  parts.noted({
    ...reply,
    status: begun(reply),
    text: reply.text + token,
    nextIndex: reply.nextIndex + count,
  });

/** The status of an open reply of which there is some text. */
const begun = ({ status }: Reply): Status => (status === "thinking" ? "streaming" : status);

function takeSnapshot(reply: Reply, text: string, nextIndex: number): Reply {
  if (nextIndex <= reply.nextIndex) return reply;
  return { ...reply, status: begun(reply), text, nextIndex };
}

/** What the server says of the whole, after its tokens were taken. */
function takeStatus(
  reply: Reply,
  server: { readonly status: ServerStatus; readonly nextIndex: number },
  at: number,
  parts: PartRules,
): Reply {
  const { status, nextIndex } = server;
  if (status === "complete") return settle({ ...reply, totalTokens: nextIndex }, at, parts);
  const settled = settle(reply, at, parts);
  if (status === "failed") return end(settled, status, at, failure(FAILED_TEXT));
  return status === "cancelled" ? end(settled, status, at) : settled;
}

/** Take held tokens whose turn has come, and end the reply once it is announced complete and whole. */
function settle(reply: Reply, at: number, parts: PartRules): Reply {
  let next = reply;
  for (let found; (found = next.held[next.nextIndex]);) next = appended(next, ...found, parts);
  const { held, nextIndex, totalTokens } = next;
  const later = Object.entries(held).filter(([index]) => Number(index) > nextIndex);
  if (later.length < Object.keys(held).length) next = { ...next, held: Object.fromEntries(later) };
  return totalTokens !== null && nextIndex >= totalTokens ? end(next, "complete", at) : next;
}
