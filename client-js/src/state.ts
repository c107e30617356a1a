/**
 * What is known of a conversation, and every way in which that changes: pure functions from a state to the next one
 * and its effects. `reduce` is the same by one name for all.
 */

import type { HistoryItem } from "./api.js";
import { failure, FAILED_TEXT, type ErrorKind } from "./errors.js";
import type { Frame, ReplyLog } from "./frames.js";
import { newest } from "./limits.js";
import {
  end,
  fresh,
  isOpen,
  missingFrom,
  take,
  takeLog,
  TEXT_ONLY,
  type Answer,
  type MessageOptions,
  type PartRules,
  type Place,
  type Reply,
  type UserTurn,
} from "./reply.js";
import { wellFormed } from "./text.js";

export type Turn = UserTurn | Reply;

export interface ChatState {
  readonly turns: readonly Turn[];
  /** Frames of ids that nobody knows yet: tokens may arrive before the answer to `send` does. */
  readonly strays: readonly Frame[];
  /** True if ids may also become known in other ways: then strays are always kept. */
  readonly isShared?: boolean;
}

/** `parts`: a snapshot lacks what the log has: long fields, or where its parts stand amid its text. */
export type Effect =
  | { readonly type: "gap"; readonly messageId: string; readonly from: number }
  | { readonly type: "parts"; readonly messageId: string; readonly from: number }
  | { readonly type: "cancel"; readonly messageId: string };

export interface Step {
  readonly state: ChatState;
  readonly effects: readonly Effect[];
}

/** A new turn of the user's, and the reply to it. */
export interface Question {
  readonly key: string;
  readonly userKey: string;
  readonly requestId: string;
  readonly text: string;
  readonly options?: MessageOptions | undefined;
  readonly later?: boolean | undefined;
  readonly place?: Place | undefined;
  readonly at: number;
}

/** A reply that starts over. */
export interface Again {
  readonly key: string;
  readonly requestId: string;
  readonly again?: boolean | undefined;
  readonly later?: boolean | undefined;
  readonly at: number;
}

// The oldest stray beyond MAX_STRAYS is dropped: the refetch brings it.
export const MAX_STRAYS = 1000;
export const MAX_TURNS = 200;

export const EMPTY: ChatState = { turns: [], strays: [] };

export const isReply = (turn: Turn): turn is Reply => turn.role === "assistant";

/** True while more is to come for this reply. */
export const isActive = (turn: Turn): turn is Reply => isReply(turn) && isOpen(turn);

/** True for a reply that was not asked for yet. */
export const isUnsent = (turn: Turn): turn is Reply & { readonly status: "unsent" } =>
  isReply(turn) && turn.status === "unsent";

/** True for a reply that was asked for and is being made. */
export const isAsked = (turn: Turn): turn is Reply => isActive(turn) && !isUnsent(turn);

/** True for a reply that was stopped before its id was known: the server may be at work on it, and cannot be told. */
export const isStopOwed = (turn: Turn): turn is Reply & { readonly status: "cancelled" } =>
  isReply(turn) && turn.status === "cancelled" && turn.request !== null;

export const findReply = (
  { turns }: ChatState,
  value: string,
  by: "key" | "messageId" = "key",
): Reply | undefined => turns.find((turn): turn is Reply => isReply(turn) && turn[by] === value);

/**
 * What the model may read of these turns: what people said, unless the server refused it, and replies that are whole.
 *
 * @param rest what else the request has, which takes room
 */
export function history(turns: readonly Turn[], rest?: unknown): HistoryItem[] {
  return newest(
    turns
      .filter((turn, index) => turn.text !== "" && isTold(turn, turns[index + 1]))
      .map((turn) => ({ role: turn.role, content: wellFormed(turn.text) })),
    rest,
  );
}

const isTold = (turn: Turn, next: Turn | undefined): boolean =>
  isReply(turn) ? turn.status === "complete" : next === undefined || !isUnheard(next);

/** True if the server has no such request: it is unsent, or was refused. Then what was asked is not in the conversation. */
export const isUnheard = (turn: Turn): boolean =>
  isReply(turn) &&
  (isUnsent(turn) || (!isOpen(turn) && turn.messageId === null && turn.request === null));

const still = (state: ChatState, effects: readonly Effect[] = []): Step => ({ state, effects });

/** Ask for a reply; with `later`, only note that it is wanted. */
export function ask(state: ChatState, { later, place, ...question }: Question): Step {
  const request = later && { id: question.requestId, history: [] };
  return askNow(state, question, place, {
    ...(place && { ...place, parent: question.userKey }),
    ...(request && { request, status: "unsent" }),
  });
}

/** Ask for a reply at once; with what else its turns have. */
export function askNow(
  state: ChatState,
  { key, userKey, requestId, text, options, at }: Question,
  place?: Place,
  more?: Partial<Reply>,
): Step {
  const user: UserTurn = {
    ...{ role: "user", key: userKey, text: wellFormed(text) },
    ...(options && { options }),
    ...place,
  };
  const request = more?.request ?? { id: requestId, history: historyFor(state.turns, user) };
  const turns = [...state.turns, user, { ...fresh(key, request, at), ...more }];
  return still({ ...state, turns: place ? turns : turns.slice(-MAX_TURNS) });
}

/** The time of an unsent reply has come: its history is that of now; unless the request is `to` a conversation. */
export function post(state: ChatState, key: string, at: number, to?: object): Step {
  const reply = findReply(state, key);
  if (!reply?.request || !isUnsent(reply)) return still(state);
  const { id } = reply.request;
  const [earlier, user] = questionOf(state, reply);
  if (!user) return still(state);
  const request = to ? { id, history: [], to } : { id, history: historyFor(earlier, user) };
  return put(state, reply, { ...reply, request, status: "thinking", startedAt: at });
}

const historyFor = (earlier: readonly Turn[], user: UserTurn): HistoryItem[] =>
  history(earlier, [user.text, user.options ?? null]);

/** The turns before the user's turn that a reply answers, and that turn. */
export function questionOf(
  { turns }: ChatState,
  reply: Reply,
): readonly [readonly Turn[], UserTurn | undefined] {
  const { parent } = reply;
  const index =
    parent === undefined
      ? turns.indexOf(reply) - 1
      : turns.findIndex((turn) => !isReply(turn) && [turn.key, turn.messageId].includes(parent));
  const user = turns[index];
  return user && !isReply(user) ? [turns.slice(0, index), user] : [[], undefined];
}

/** The request for a reply is answered: it has an id. */
export function accept(
  state: ChatState,
  key: string,
  messageId: string,
  at: number,
  parts: PartRules,
): Step {
  const reply = findReply(state, key);
  const known = reply && { ...reply, messageId, request: null };
  if (known && isOpen(known)) return adopt(state, reply, known, at, parts);
  // Stopped, or the conversation was cleared, before the id was known: nobody waits for this reply.
  const step = known ? put(state, reply, known) : still(state);
  return still(step.state, [{ type: "cancel", messageId }]);
}

/** Put a reply whose id is new in the place of `before`, with the strays that are its own. */
export function adopt(
  state: ChatState,
  before: Reply,
  reply: Reply,
  at: number,
  parts: PartRules,
): Step {
  const { messageId } = reply;
  const isOwn = (frame: Frame): boolean => frame.messageId === messageId;
  const own = state.strays.filter(isOwn);
  const adopted = own.reduce((now, frame) => take(now, frame, at, parts), reply);
  const strays = state.strays.filter((frame) => !isOwn(frame));
  const step = put({ ...state, strays }, before, adopted, parts);
  // Tokens that were dropped are missed; parts are not, because not all of a reply's offsets are theirs.
  const isDropped = state.strays.length >= MAX_STRAYS && step.effects.length === 0;
  return isDropped && messageId ? still(step.state, [{ type: "parts", messageId, from: 0 }]) : step;
}

/** The request for a reply has failed. Unless that was answered, it may have arrived, and is repeated as it was. */
export function refused(
  state: ChatState,
  key: string,
  why: { readonly kind: ErrorKind; readonly error: string },
  isAnswered: boolean,
  at: number,
): Step {
  const reply = findReply(state, key);
  if (!reply) return still(state);
  const ended = isOpen(reply) ? end(reply, "failed", at, why) : reply;
  return put(state, reply, { ...ended, request: isAnswered ? null : reply.request });
}

export function receive(state: ChatState, frame: Frame, at: number, parts: PartRules): Step {
  const reply = findReply(state, frame.messageId, "messageId");
  if (reply) return put(state, reply, take(reply, frame, at, parts), parts);
  if (!isCollecting(state)) return still(state); // another tab's reply
  return still({ ...state, strays: [...state.strays, frame].slice(-MAX_STRAYS) });
}

/** What a refetch brought; a reply that has ended learns only what a snapshot left out. */
export function refetched(
  state: ChatState,
  messageId: string,
  log: ReplyLog,
  at: number,
  parts: PartRules,
): Step {
  const reply = findReply(state, messageId, "messageId");
  if (!reply) return still(state);
  const after = takeLog(reply, log, at, parts);
  return put(state, reply, after, isOpen(reply) ? parts : TEXT_ONLY);
}

/** Stop a reply. */
export const cancel = (state: ChatState, key: string, at: number): Step =>
  stop(state, key, (reply) => ({
    ...end(reply, "cancelled", at),
    request: isUnsent(reply) ? null : reply.request,
  }));

/** Nobody will end this reply, so it counts as failed. */
export const giveUp = (state: ChatState, key: string, at: number): Step =>
  stop(state, key, (reply) => end(reply, "failed", at, failure(FAILED_TEXT)));

/** End a reply from this side: nobody waits for it any more, and the server need not go on. */
function stop(state: ChatState, key: string, next: (reply: Reply) => Reply): Step {
  const reply = findReply(state, key);
  if (!reply || !isOpen(reply)) return still(state);
  return still(put(state, reply, next(reply)).state, cancelled(reply));
}

const cancelled = ({ messageId }: Reply): Effect[] =>
  messageId ? [{ type: "cancel", messageId }] : [];

/** Start a reply that failed over; with `again`, any that has ended. */
export function retry(state: ChatState, { key, requestId, again, later, at }: Again): Step {
  const reply = findReply(state, key);
  if (!reply || isOpen(reply) || isStopOwed(reply)) return still(state);
  if (reply.status !== "failed" && !again) return still(state);
  const [earlier, user] = questionOf(state, reply);
  if (!user) return still(state);
  const { conversation, parent } = reply;
  const anew = (request: Reply["request"]): Reply => ({
    ...fresh(key, request, at),
    ...(conversation !== undefined && { conversation, parent }),
  });
  if (reply.request) return put(state, reply, anew(reply.request)); // the same, to the byte
  const next = anew({ id: requestId, history: later ? [] : historyFor(earlier, user) });
  return put(state, reply, later ? { ...next, status: "unsent" } : next);
}

/** Forget a turn and all behind it; what still runs of that is stopped. */
export function cut(state: ChatState, key: string): Step {
  const index = state.turns.findIndex((turn) => turn.key === key);
  if (index < 0) return still(state);
  const effects = state.turns.slice(index).filter(isActive).flatMap(cancelled);
  return still({ ...state, turns: state.turns.slice(0, index) }, effects);
}

/** The user decides about a tool call, or the request that says so has an outcome. */
export function answered(
  state: ChatState,
  messageId: string,
  call: string,
  answer: Answer,
  parts: PartRules,
): Step {
  const reply = findReply(state, messageId, "messageId");
  if (!reply || !isOpen(reply)) return still(state);
  return put(state, reply, parts.answered?.(reply, call, answer) ?? reply, parts);
}

/** A reply in the place of what it was, and what it needs. */
function put(state: ChatState, before: Reply, after: Reply, parts: PartRules = TEXT_ONLY): Step {
  if (after === before) return still(state);
  const turns = state.turns.map((turn) => (turn === before ? after : turn));
  const next = { ...state, turns };
  return still(isCollecting(next) ? next : { ...next, strays: [] }, needs(before, after, parts));
}

const isCollecting = ({ isShared, turns }: ChatState): boolean =>
  isShared ?? turns.some((turn) => isActive(turn) && turn.messageId === null);

/** A need is reported once, when it arises; not again with each token behind it. */
function needs(before: Reply, after: Reply, rules: PartRules): Effect[] {
  const { messageId } = after;
  if (messageId === null) return [];
  const gap = missingFrom(after);
  const parts = rules.lackedFrom(before, after);
  const effects: Effect[] = [];
  if (gap !== null && gap !== missingFrom(before))
    effects.push({ type: "gap", messageId, from: gap });
  if (parts !== null) effects.push({ type: "parts", messageId, from: parts });
  return effects;
}
