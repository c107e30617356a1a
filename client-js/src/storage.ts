/** The conversation in the browser: survives a refresh, never breaks the page. */

import {
  isBoolean,
  isCount,
  isListOf,
  isNullOr,
  isNumber,
  isObjectOf,
  isOneOf,
  isOptional,
  isRecordOf,
  isString,
  pick,
  type Check,
  type Fields,
} from "./checks.js";
import type { Keeper } from "./conversation.js";
import { fold, joined, parsePart, withSnapshot, type PartLog } from "./parts.js";
import { isActive, MAX_TURNS, type Answer, type Reply, type Turn } from "./reducer.js";
import { NO_PARTS } from "./reply.js";
import type { Saved } from "./thread.js";

/** The part of the Web Storage API that is used. */
export type TextStorage = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** For the `keep` option of a chat. The conversation survives what `storage` survives; default `sessionStorage`. */
export function keepIn(storage: TextStorage | null = sessionStorageIfAny()): Keeper {
  return {
    load: (name) => load(storage, name),
    save: (name, saved) => {
      save(storage, name, saved);
    },
  };
}

function sessionStorageIfAny(): TextStorage | null {
  try {
    return globalThis.sessionStorage;
  } catch {
    return null; // a browser that forbids storage throws on the mere access
  }
}

const VERSION = 4;

const SAVED: Fields = {
  version: isCount,
  sessionId: (value) => typeof value === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(value),
  leaf: isOptional(isNullOr(isString)),
  turns: (value) => Array.isArray(value) && value.length <= MAX_TURNS && value.length % 2 === 0,
};

const isPlace = isOptional(isString);

const isOptions: Check = (value) =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const USER: Fields = {
  ...{ role: isOneOf("user"), key: isString, text: isString },
  ...{ options: isOptional(isOptions), conversation: isPlace, parent: isPlace },
};

const HISTORY_ITEM: Fields = { role: isOneOf("user", "assistant"), content: isString };

const isSpan: Check = (value) => isListOf(isNumber)(value) && (value as unknown[]).length === 2;

const isAnswer = isObjectOf({
  approve: isBoolean,
  state: isOneOf("sent", "taken"),
  error: isString,
});

/** A reply as it is kept: all but `held`, which a refresh reads from the server's log, and `parts`, which `log` makes. */
const REPLY: Fields = {
  role: isOneOf("assistant"),
  key: isString,
  ...{ conversation: isPlace, parent: isPlace },
  request: isNullOr(
    isObjectOf({
      ...{ id: isString, history: isListOf(isObjectOf(HISTORY_ITEM)) },
      to: isOptional(isOptions),
    }),
  ),
  messageId: isNullOr(isString),
  status: isOneOf("unsent", "thinking", "streaming", "waiting", "complete", "failed", "cancelled"),
  text: isString,
  nextIndex: isCount,
  totalTokens: isNullOr(isCount),
  log: isObjectOf({
    offset: isCount,
    events: isListOf((event) => parsePart(event, "type") !== null),
  }),
  cuts: isRecordOf(isCount),
  spans: isRecordOf(isSpan),
  answers: isRecordOf(isAnswer),
  model: isNullOr(isString),
  usage: () => true,
  error: isNullOr(isString),
  errorKind: isNullOr(isString),
  startedAt: isNumber,
  endedAt: isNullOr(isNumber),
};

/** What was saved under `name`, or null: nothing, of another version, or not in every part what {@link save} writes. */
export function load(storage: TextStorage | null, name: string): Saved | null {
  try {
    const saved = pick(SAVED, JSON.parse(storage?.getItem(name) ?? "null"));
    if (!saved) return null;
    const { version, ...rest } = saved as Saved & { version: number };
    return version === VERSION ? checked(rest as { sessionId: string; turns: unknown[] }) : null;
  } catch {
    return null; // not JSON, or a browser that forbids storage
  }
}

/**
 * What is too much for the storage is kept without its parts, then without the options of messages that the server
 * has, such as attachments, and what still is, not at all.
 */
export function save(storage: TextStorage | null, name: string, saved: Saved): void {
  const { turns, ...named } = saved;
  for (const keep of [lean, bare, barest]) {
    const slim = turns.map((turn, index) => keep(turn, turns[index + 1]));
    try {
      storage?.setItem(name, JSON.stringify({ version: VERSION, ...named, turns: slim }));
      return;
    } catch {
      // Full or forbidden: the conversation goes on and only a refresh loses it.
    }
  }
}

/** A turn as it is kept. */
function lean(turn: Turn): object | null {
  if (turn.role === "user") return pick(USER, turn);
  const answers = Object.entries(turn.answers).filter(([, answer]) => isAnswer(answer));
  return pick(REPLY, {
    ...turn,
    log: kept(turn.log),
    answers: Object.fromEntries(answers) satisfies Record<string, Answer>,
  });
}

function bare(turn: Turn): object | null {
  if (turn.role === "user") return lean(turn);
  return lean({ ...turn, log: NO_PARTS, cuts: {}, spans: {}, answers: {} });
}

function barest(turn: Turn, next: Turn | undefined): object | null {
  const isTaken = next?.role === "assistant" && next.messageId !== null;
  return turn.role === "user" && isTaken ? { ...turn, options: undefined } : bare(turn);
}

/** Joined, as in a snapshot: single pieces are many. What comes after a refresh has higher offsets. */
function kept({ offset, events }: PartLog): PartLog {
  const next = (events.at(-1)?.offset ?? -1) + 1;
  return { offset: Math.max(offset, next), events: joined(events) };
}

function checked({ turns, ...named }: { sessionId: string; turns: unknown[] }): Saved | null {
  const valid = turns.map(toTurn).filter((turn) => turn !== null);
  const keys = new Set(valid.map((turn) => turn.key));
  return keys.size === turns.length ? { ...named, turns: valid } : null;
}

function loaded({ offset, events }: { offset: number; events: unknown[] }): PartLog {
  const known = events.map((event) => parsePart(event, "type")).filter((event) => event !== null);
  return kept(withSnapshot(NO_PARTS, offset, known));
}

/** Turns come in pairs: what the user said, and its reply. */
function toTurn(value: unknown, index: number): Turn | null {
  if (index % 2 === 0) return pick(USER, value) as Turn | null;
  const fields = pick(REPLY, value);
  if (!fields) return null;
  const log = loaded((fields as { log: { offset: number; events: unknown[] } }).log);
  const reply = {
    usage: null,
    ...fields,
    ...{ held: {}, seen: 0, log, parts: fold(log.events) },
  } as unknown as Reply;
  return isCoherent(reply) ? reply : null;
}

/** A reply has an end if it has ended; while it has not, there is a way to learn how it goes on. */
function isCoherent(reply: Reply): boolean {
  const active: boolean = isActive(reply);
  const reachable =
    (reply.messageId !== null && reply.status !== "unsent") || reply.request !== null;
  return active === (reply.endedAt === null) && (reachable || !active);
}
