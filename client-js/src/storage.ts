/** The conversation in the browser: survives a refresh, never breaks the page. */

import {
  isCount,
  isListOf,
  isNullOr,
  isNumber,
  isObjectOf,
  isOneOf,
  isString,
  pick,
  type Fields,
} from "./checks.js";
import { isActive, MAX_TURNS, type Reply, type Turn } from "./reducer.js";

/** What is kept. `sessionId` names the conversation to the server. */
export interface Saved {
  readonly sessionId: string;
  readonly turns: readonly Turn[];
}

/** The part of the Web Storage API that is used. */
export type TextStorage = Pick<Storage, "getItem" | "setItem" | "removeItem">;

const VERSION = 2;

const SAVED: Fields = {
  version: isOneOf(VERSION),
  sessionId: (value) => typeof value === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(value),
  turns: (value) => Array.isArray(value) && value.length <= MAX_TURNS && value.length % 2 === 0,
};

const USER: Fields = { role: isOneOf("user"), key: isString, text: isString };

const HISTORY_ITEM: Fields = { role: isOneOf("user", "assistant"), content: isString };

/** A reply as it is kept: all but `held`, which a refresh reads from the server's log. */
const REPLY: Fields = {
  role: isOneOf("assistant"),
  key: isString,
  request: isNullOr(isObjectOf({ id: isString, history: isListOf(isObjectOf(HISTORY_ITEM)) })),
  messageId: isNullOr(isString),
  status: isOneOf("thinking", "streaming", "complete", "failed", "cancelled"),
  text: isString,
  nextIndex: isCount,
  totalTokens: isNullOr(isCount),
  model: isNullOr(isString),
  error: isNullOr(isString),
  startedAt: isNumber,
  endedAt: isNullOr(isNumber),
};

/** What was saved under `name`, or null: nothing, of another version, or not in every part what {@link save} writes. */
export function load(storage: TextStorage | null, name: string): Saved | null {
  try {
    const saved = pick(SAVED, JSON.parse(storage?.getItem(name) ?? "null"));
    return saved && checked(saved as { sessionId: string; turns: unknown[] });
  } catch {
    return null; // not JSON, or a browser that forbids storage
  }
}

export function save(storage: TextStorage | null, name: string, saved: Saved): void {
  const turns = saved.turns.map((turn) => pick(turn.role === "user" ? USER : REPLY, turn));
  try {
    storage?.setItem(name, JSON.stringify({ version: VERSION, sessionId: saved.sessionId, turns }));
  } catch {
    // Full or forbidden: the conversation goes on and only a refresh loses it.
  }
}

function checked({ sessionId, turns }: { sessionId: string; turns: unknown[] }): Saved | null {
  const valid = turns.map(toTurn).filter((turn) => turn !== null);
  const keys = new Set(valid.map((turn) => turn.key));
  return keys.size === turns.length ? { sessionId, turns: valid } : null;
}

/** Turns come in pairs: what the user said, and its reply. */
function toTurn(value: unknown, index: number): Turn | null {
  if (index % 2 === 0) return pick(USER, value) as Turn | null;
  const fields = pick(REPLY, value);
  if (!fields) return null;
  const reply = { ...fields, held: {} } as unknown as Reply;
  return isCoherent(reply) ? reply : null;
}

/** A reply has an end if it has ended; while it has not, there is a way to learn how it goes on. */
function isCoherent(reply: Reply): boolean {
  const active: boolean = isActive(reply);
  const reachable = reply.messageId !== null || reply.request !== null;
  return active === (reply.endedAt === null) && (reachable || !active);
}
