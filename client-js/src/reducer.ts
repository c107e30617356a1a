/**
 * A conversation as a pure function: `reduce(state, action) → { state, effects }`.
 *
 * No clock, no I/O, no framework. What must happen outside is returned as data: `gap` and `parts` ask for
 * `GET /api/chat/{id}?after=from-1`, `cancel` for `POST /api/chat/{id}/cancel`.
 *
 * The rules that everything below serves:
 *  - `text` is always the first `nextIndex` tokens of the reply, no matter in what order, how often, or by which
 *    way (frame, snapshot, refetch) they came. The same holds for `parts`, by their offsets.
 *  - `complete`, `failed` and `cancelled` are final. Only the user's retry starts a reply over.
 */

import type { ErrorKind } from "./errors.js";
import type { Frame, ReplyLog } from "./frames.js";
import { TEXT_ONLY, type Answer, type MessageOptions, type PartRules } from "./reply.js";
import {
  accept,
  answered,
  ask,
  cancel,
  cut,
  giveUp,
  post,
  receive,
  refetched,
  refused,
  retry,
  type ChatState,
  type Step,
} from "./state.js";

export { MAX_HELD, missingFrom } from "./reply.js";
export type { HistoryItem } from "./api.js";
export type {
  Answer,
  MessageOptions,
  PartRules,
  PendingRequest,
  Reply,
  Status,
  UserTurn,
} from "./reply.js";
export {
  EMPTY,
  findReply,
  history,
  isActive,
  isReply,
  isStopOwed,
  isUnsent,
  MAX_STRAYS,
  MAX_TURNS,
  type ChatState,
  type Effect,
  type Step,
  type Turn,
} from "./state.js";

/** `at` is the time in milliseconds. */
export type Action =
  | {
      readonly type: "send";
      readonly key: string;
      readonly userKey: string;
      readonly requestId: string;
      readonly text: string;
      /** Of the message, for the server. */
      readonly options?: MessageOptions | undefined;
      /** True to ask for the reply later, with `post`. */
      readonly later?: boolean;
      readonly at: number;
    }
  /** The time of an unsent reply has come: its history is that of now. */
  | { readonly type: "post"; readonly key: string; readonly at: number }
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
      readonly kind: ErrorKind;
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
  | { readonly type: "give-up"; readonly key: string; readonly at: number }
  /** Start a reply that failed over; with `again` any that has ended. */
  | {
      readonly type: "retry";
      readonly key: string;
      readonly requestId: string;
      readonly again?: boolean;
      readonly later?: boolean;
      readonly at: number;
    }
  /** Forget this turn and everything behind it. */
  | { readonly type: "cut"; readonly key: string }
  | {
      /** The user decides about a tool call, or the request that says so has an outcome. */
      readonly type: "answer";
      readonly messageId: string;
      readonly call: string;
      readonly answer: Answer;
    };

/** The next state, and what must happen outside. Without `parts` a reply has text alone. */
export function reduce(state: ChatState, action: Action, parts: PartRules = TEXT_ONLY): Step {
  switch (action.type) {
    case "send":
      return ask(state, action);
    case "post":
      return post(state, action.key, action.at);
    case "send.accepted":
      return accept(state, action.key, action.messageId, action.at, parts);
    case "send.failed":
      return refused(state, action.key, action, action.answered, action.at);
    case "frame":
      return receive(state, action.frame, action.at, parts);
    case "refetched":
      return refetched(state, action.messageId, action.log, action.at, parts);
    case "cancel":
      return cancel(state, action.key, action.at);
    case "give-up":
      return giveUp(state, action.key, action.at);
    case "retry":
      return retry(state, action);
    case "cut":
      return cut(state, action.key);
    case "answer":
      return answered(state, action.messageId, action.call, action.answer, parts);
  }
}
