/**
 * A conversation as a pure function: `reduce(state, action) → { state, effects }`.
 *
 * No clock, no I/O, no framework. What must happen outside is returned as data: `gap` asks for
 * `GET /api/chat/{id}?after=from-1`, `cancel` for `POST /api/chat/{id}/cancel`.
 *
 * The two rules that everything below serves:
 *  - `text` is always the first `nextIndex` tokens of the reply, no matter in what order, how often, or by which
 *    way (frame, snapshot, refetch) they came.
 *  - `complete`, `failed` and `cancelled` are final. Only the user's retry starts a reply over.
 */

import { FAILED_TEXT, type Frame, type ReplyLog, type ServerStatus } from "./frames.js";
import { newest } from "./limits.js";
import { wellFormed } from "./text.js";

export type Status = "thinking" | "streaming" | "complete" | "failed" | "cancelled";

export interface UserTurn {
  readonly role: "user";
  readonly key: string;
  readonly text: string;
}

/** A request whose answer is not there yet. Repeated, it must be the same to the byte. */
export interface PendingRequest {
  /** The `Idempotency-Key`. */
  readonly id: string;
  readonly history: readonly HistoryItem[];
}

export interface Reply {
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
  /** Tokens that came before their turn, by index; all are above `nextIndex`. */
  readonly held: Readonly<Record<number, string>>;
  /** How many tokens the whole reply has; null until the server has said so. */
  readonly totalTokens: number | null;
  readonly model: string | null;
  readonly error: string | null;
  /** Milliseconds, of whatever clock `at` is read from. */
  readonly startedAt: number;
  readonly endedAt: number | null;
}

export type Turn = UserTurn | Reply;

export interface ChatState {
  readonly turns: readonly Turn[];
  /** Frames of ids that nobody knows yet: tokens may arrive before the answer to `send` does. */
  readonly strays: readonly Frame[];
}

/** `at` is the time in milliseconds. */
export type Action =
  | {
      readonly type: "send";
      readonly key: string;
      readonly userKey: string;
      readonly requestId: string;
      readonly text: string;
      readonly at: number;
    }
  | {
      readonly type: "send.accepted";
      readonly key: string;
      readonly messageId: string;
      readonly at: number;
    }
  | {
      readonly type: "send.failed";
      readonly key: string;
      readonly error: string;
      /** False if the request may have arrived all the same: it is then repeated as it was. */
      readonly answered: boolean;
      readonly at: number;
    }
  | { readonly type: "frame"; readonly frame: Frame; readonly at: number }
  | {
      readonly type: "refetched";
      readonly messageId: string;
      readonly log: ReplyLog;
      readonly at: number;
    }
  | { readonly type: "cancel"; readonly key: string; readonly at: number }
  | { readonly type: "give-up"; readonly key: string; readonly error: string; readonly at: number }
  | {
      readonly type: "retry";
      readonly key: string;
      readonly requestId: string;
      readonly at: number;
    };

export type Effect =
  | { readonly type: "gap"; readonly messageId: string; readonly from: number }
  | { readonly type: "cancel"; readonly messageId: string };

export interface Step {
  readonly state: ChatState;
  readonly effects: readonly Effect[];
}

/** One earlier turn as `POST /api/chat/send` takes it. */
export interface HistoryItem {
  readonly role: "user" | "assistant";
  readonly content: string;
}

// A token above MAX_HELD is dropped, and the oldest stray beyond MAX_STRAYS: the refetch brings both.
export const MAX_HELD = 1000;
export const MAX_STRAYS = 1000;
export const MAX_TURNS = 200;

export const EMPTY: ChatState = { turns: [], strays: [] };

export function reduce(state: ChatState, action: Action): Step {
  switch (action.type) {
    case "send":
      return quiet({
        ...state,
        turns: [...state.turns, ...newTurns(state, action)].slice(-MAX_TURNS),
      });
    case "send.accepted":
      return accept(state, action.key, action.messageId, action.at);
    case "send.failed":
      return sendFailed(state, action);
    case "frame":
      return receive(state, action.frame, action.at);
    case "refetched":
      return change(state, byId(action.messageId), (reply) =>
        takeLog(reply, action.log, action.at),
      );
    case "cancel":
      return stop(state, action.key, (reply) => end(reply, "cancelled", action.at));
    case "give-up":
      return stop(state, action.key, (reply) => end(reply, "failed", action.at, action.error));
    case "retry":
      return retry(state, action.key, action.requestId, action.at);
  }
}

export const isReply = (turn: Turn): turn is Reply => turn.role === "assistant";

/** True while more is to come for this reply. */
export function isActive(turn: Turn): turn is Reply {
  return turn.role === "assistant" && (turn.status === "thinking" || turn.status === "streaming");
}

/** True for a reply that was stopped before its id was known: the server may be at work on it, and cannot be told. */
export function isStopOwed(turn: Turn): turn is Reply {
  return turn.role === "assistant" && turn.status === "cancelled" && turn.request !== null;
}

/** The first index that is missing although something behind it is known, or null. */
export function missingFrom(reply: Reply): number | null {
  if (!isActive(reply)) return null;
  const behind = Object.keys(reply.held).length > 0 || (reply.totalTokens ?? 0) > reply.nextIndex;
  return behind ? reply.nextIndex : null;
}

/** What the model may read of these turns: what people said, unless the server refused it, and replies that are whole. */
export function history(turns: readonly Turn[]): HistoryItem[] {
  return newest(
    turns
      .filter((turn, index) => turn.text !== "" && isTold(turn, turns[index + 1]))
      .map((turn) => ({ role: turn.role, content: wellFormed(turn.text) })),
  );
}

const isTold = (turn: Turn, next: Turn | undefined): boolean =>
  turn.role === "user" ? next === undefined || !isRefused(next) : turn.status === "complete";

/** True for a reply whose request the server answered with a refusal: what was asked is not in the conversation. */
const isRefused = (turn: Turn): boolean =>
  turn.role === "assistant" &&
  turn.status === "failed" &&
  turn.messageId === null &&
  turn.request === null;

export function findReply(state: ChatState, key: string): Reply | undefined {
  return state.turns.filter(isReply).find(byKey(key));
}

type Match = (reply: Reply) => boolean;

const byKey =
  (key: string): Match =>
  (reply) =>
    reply.key === key;

const byId =
  (messageId: string): Match =>
  (reply) =>
    reply.messageId === messageId;

const quiet = (state: ChatState): Step => ({ state, effects: [] });

type ActionOf<Type extends Action["type"]> = Extract<Action, { type: Type }>;

function newTurns({ turns }: ChatState, action: ActionOf<"send">): Turn[] {
  return [
    { role: "user", key: action.userKey, text: wellFormed(action.text) },
    fresh(action.key, { id: action.requestId, history: history(turns) }, action.at),
  ];
}

function fresh(key: string, request: PendingRequest, at: number): Reply {
  return {
    role: "assistant",
    key,
    request,
    messageId: null,
    status: "thinking",
    text: "",
    nextIndex: 0,
    held: {},
    totalTokens: null,
    model: null,
    error: null,
    startedAt: at,
    endedAt: null,
  };
}

/** Change the one active reply that matches; a reply that has ended stays as it is. */
function change(state: ChatState, match: Match, next: (reply: Reply) => Reply): Step {
  const before = state.turns.find((turn): turn is Reply => isActive(turn) && match(turn));
  if (!before) return quiet(state);
  const after = next(before);
  if (after === before) return quiet(state);
  return { state: put(state, after), effects: newGap(before, after) };
}

function put(state: ChatState, reply: Reply): ChatState {
  const turns = state.turns.map((turn) => (turn.key === reply.key ? reply : turn));
  const strays = turns.some(awaitsId) ? state.strays : [];
  return { turns, strays };
}

const awaitsId = (turn: Turn): boolean => isActive(turn) && turn.messageId === null;

/** A gap is reported once, when it opens; not again with each token behind it. */
function newGap(before: Reply, after: Reply): Effect[] {
  const from = missingFrom(after);
  if (from === null || after.messageId === null || from === missingFrom(before)) return [];
  return [{ type: "gap", messageId: after.messageId, from }];
}

function accept(state: ChatState, key: string, messageId: string, at: number): Step {
  const reply = findReply(state, key);
  if (reply?.endedAt !== null) {
    // Stopped, or the conversation was cleared, before the id was known: nobody waits for this reply.
    const turns = state.turns.map((turn) =>
      turn === reply ? { ...reply, messageId, request: null } : turn,
    );
    return { state: { ...state, turns }, effects: [{ type: "cancel", messageId }] };
  }
  const own = state.strays.filter((frame) => frame.messageId === messageId);
  const others = state.strays.filter((frame) => frame.messageId !== messageId);
  const answered: Reply = { ...reply, messageId, request: null };
  const adopted = own.reduce((now, frame) => take(now, frame, at), answered);
  return { state: put({ ...state, strays: others }, adopted), effects: newGap(reply, adopted) };
}

function sendFailed(state: ChatState, action: ActionOf<"send.failed">): Step {
  const reply = findReply(state, action.key);
  if (!reply) return quiet(state);
  const ended = isActive(reply) ? end(reply, "failed", action.at, action.error) : reply;
  return quiet(put(state, { ...ended, request: action.answered ? null : reply.request }));
}

function receive(state: ChatState, frame: Frame, at: number): Step {
  const known = state.turns.some((turn) => isReply(turn) && byId(frame.messageId)(turn));
  if (known) return change(state, byId(frame.messageId), (reply) => take(reply, frame, at));
  if (!state.turns.some(awaitsId)) return quiet(state); // another tab's reply
  return quiet({ ...state, strays: [...state.strays, frame].slice(-MAX_STRAYS) });
}

/** End a reply from this side: nobody waits for it any more, and the server need not go on. */
function stop(state: ChatState, key: string, next: (reply: Reply) => Reply): Step {
  const { state: after, effects } = change(state, byKey(key), next);
  const messageId = findReply(after, key)?.messageId;
  if (after === state || !messageId) return { state: after, effects };
  return { state: after, effects: [...effects, { type: "cancel", messageId }] };
}

function retry(state: ChatState, key: string, requestId: string, at: number): Step {
  const failed = findReply(state, key);
  if (failed?.status !== "failed") return quiet(state);
  const earlier = state.turns.slice(0, Math.max(0, state.turns.indexOf(failed) - 1));
  const request = failed.request ?? { id: requestId, history: history(earlier) };
  return quiet(put(state, fresh(key, request, at)));
}

/** Apply one frame to the active reply that it is about. */
function take(reply: Reply, frame: Frame, at: number): Reply {
  if (!isActive(reply)) return reply;
  switch (frame.type) {
    case "stream.started":
      return { ...reply, model: frame.model };
    case "token.received":
      return settle(takeToken(reply, frame.tokenIndex, frame.token), at);
    case "stream.completed":
      return settle({ ...reply, totalTokens: frame.totalTokens }, at);
    case "stream.failed":
      return end(reply, "failed", at, frame.error);
    case "stream.cancelled":
      return end(reply, "cancelled", at);
    case "stream.snapshot":
      return takeStatus(takeSnapshot(reply, frame.text, frame.nextIndex), frame, at);
  }
}

function takeToken(reply: Reply, index: number, token: string): Reply {
  if (index === reply.nextIndex) {
    return { ...reply, status: "streaming", text: reply.text + token, nextIndex: index + 1 };
  }
  const held = reply.held;
  if (index < reply.nextIndex || index in held || Object.keys(held).length >= MAX_HELD)
    return reply;
  return { ...reply, held: { ...held, [index]: token } };
}

function takeSnapshot(reply: Reply, text: string, nextIndex: number): Reply {
  if (nextIndex <= reply.nextIndex) return reply;
  return { ...reply, status: "streaming", text, nextIndex };
}

function takeLog(reply: Reply, log: ReplyLog, at: number): Reply {
  const first = log.nextIndex - log.tokens.length;
  const filled = log.tokens.reduce(
    (now, token, offset) => takeToken(now, first + offset, token),
    reply,
  );
  return takeStatus(filled, log, at);
}

/** What the server says of the whole, after its tokens were taken. */
function takeStatus(
  reply: Reply,
  server: { readonly status: ServerStatus; readonly nextIndex: number },
  at: number,
): Reply {
  switch (server.status) {
    case "queued":
    case "streaming":
      return settle(reply, at);
    case "complete":
      return settle({ ...reply, totalTokens: server.nextIndex }, at);
    case "failed":
      return end(settle(reply, at), "failed", at, FAILED_TEXT);
    case "cancelled":
      return end(settle(reply, at), "cancelled", at);
  }
}

/** Take held tokens whose turn has come, and end the reply once it is announced complete and whole. */
function settle(reply: Reply, at: number): Reply {
  let { text, nextIndex } = reply;
  for (let token = reply.held[nextIndex]; token !== undefined; token = reply.held[nextIndex]) {
    text += token;
    nextIndex += 1;
  }
  const held = Object.entries(reply.held).filter(([index]) => Number(index) > nextIndex);
  const settled =
    held.length === Object.keys(reply.held).length
      ? reply
      : { ...reply, text, nextIndex, held: Object.fromEntries(held) };
  const whole = settled.totalTokens !== null && settled.nextIndex >= settled.totalTokens;
  return whole ? end(settled, "complete", at) : settled;
}

function end(
  reply: Reply,
  status: "complete" | "failed" | "cancelled",
  at: number,
  error: string | null = null,
): Reply {
  return { ...reply, status, error, held: {}, endedAt: at };
}
