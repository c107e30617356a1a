/**
 * What the server says about a reply, checked at the border: everything behind this module may trust its types.
 *
 * Events arrive on `private-ai-chat.{userId}`. Fields that are not used here (`userId`, `usage` ...) are ignored,
 * as is any event that is not in the table, so that a newer server may add both.
 */

import { isCount, isListOf, isOneOf, isString, pick, type Fields } from "./checks.js";

/** Where a reply stands for the server. */
export type ServerStatus = "queued" | "streaming" | "complete" | "failed" | "cancelled";

/** One event of a streamed reply. `tokenIndex` counts from 0 without gaps. */
export type Frame =
  | { readonly type: "stream.started"; readonly messageId: string; readonly model: string }
  | {
      readonly type: "token.received";
      readonly messageId: string;
      readonly token: string;
      readonly tokenIndex: number;
    }
  | { readonly type: "stream.completed"; readonly messageId: string; readonly totalTokens: number }
  | { readonly type: "stream.failed"; readonly messageId: string; readonly error: string }
  | { readonly type: "stream.cancelled"; readonly messageId: string }
  | {
      readonly type: "stream.snapshot";
      readonly messageId: string;
      readonly text: string;
      readonly nextIndex: number;
      readonly status: ServerStatus;
    };

export type FrameType = Frame["type"];

/** Answer of `GET /api/chat/{id}?after=i`: `tokens` are those from `i + 1` up to `nextIndex - 1`. */
export interface ReplyLog {
  readonly tokens: readonly string[];
  readonly nextIndex: number;
  readonly status: ServerStatus;
}

/** What people read when a reply fails, whatever the reason. */
export const FAILED_TEXT = "Response unavailable. Please try again.";

const isStatus = isOneOf("queued", "streaming", "complete", "failed", "cancelled");

const FIELDS: Record<FrameType, Fields> = {
  "stream.started": { messageId: isString, model: isString },
  "token.received": { messageId: isString, token: isString, tokenIndex: isCount },
  "stream.completed": { messageId: isString, totalTokens: isCount },
  "stream.failed": { messageId: isString, error: isString },
  "stream.cancelled": { messageId: isString },
  "stream.snapshot": { messageId: isString, text: isString, nextIndex: isCount, status: isStatus },
};

const LOG_FIELDS: Fields = {
  tokens: isListOf(isString),
  nextIndex: isCount,
  status: isStatus,
};

/** Every event to listen for. */
export const FRAME_TYPES = Object.keys(FIELDS) as readonly FrameType[];

/** The event as a frame, or null if its data is not what the event promises. */
export function parseFrame(type: FrameType, data: unknown): Frame | null {
  const fields = pick(FIELDS[type], data);
  return fields && ({ type, ...fields } as Frame);
}

/** The body of a refetch, or null if it is not one. */
export function parseReplyLog(body: unknown): ReplyLog | null {
  return pick(LOG_FIELDS, body) as ReplyLog | null;
}
