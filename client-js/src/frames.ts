/**
 * What the server says about a reply, checked at the border: everything behind this module may trust its types.
 *
 * Events arrive on `private-ai-chat.{userId}`. Fields that are not used here (`userId`, `usage` ...) are ignored,
 * as is any event that is not in the table, so that a newer server may add both.
 */

import {
  isCount,
  isListOf,
  isOneOf,
  isOptional,
  isString,
  pick,
  type Check,
  type Fields,
} from "./checks.js";
import type { PartEvent, Usage } from "./parts.js";

/** Where a reply stands for the server. */
export type ServerStatus = "queued" | "streaming" | "waiting" | "complete" | "failed" | "cancelled";

/** The other parts of a reply, as snapshots and answers over HTTP have them; absent in a reply of nothing but text. */
export interface WithParts {
  /** How many entries of the reply's log they cover. */
  readonly offset?: number;
  readonly parts?: readonly PartEvent[];
}

/** One event of a streamed reply. `tokenIndex` counts from 0 without gaps. */
export type Frame =
  | { readonly type: "stream.started"; readonly messageId: string; readonly model: string }
  | {
      readonly type: "token.received";
      readonly messageId: string;
      readonly token: string;
      readonly tokenIndex: number;
      /** How many tokens `token` is; default 1. Only servers that were asked to merge them send more. */
      readonly tokenCount?: number;
    }
  | {
      readonly type: "stream.completed";
      readonly messageId: string;
      readonly totalTokens: number;
      readonly usage?: Usage;
    }
  | {
      readonly type: "stream.failed";
      readonly messageId: string;
      readonly error: string;
      /** For programs, such as `overloaded`. */
      readonly code?: string;
    }
  | { readonly type: "stream.cancelled"; readonly messageId: string }
  | ({
      readonly type: "stream.snapshot";
      readonly messageId: string;
      readonly text: string;
      readonly nextIndex: number;
      readonly status: ServerStatus;
    } & WithParts)
  | PartFrame;

/** An event of a part. */
export type PartFrame = PartEvent & { readonly messageId: string };

export type FrameType = Frame["type"];

/** Answer of `GET /api/chat/{id}?after=i`: `tokens` are those from `i + 1` up to `nextIndex - 1`. */
export interface ReplyLog extends WithParts {
  readonly tokens: readonly string[];
  readonly nextIndex: number;
  readonly status: ServerStatus;
}

const isPositive: Check = (value) => isCount(value) && value !== 0;

/** An end counts whatever is said of its cost. */
const isAnything: Check = () => true;

const isStatus = isOneOf("queued", "streaming", "waiting", "complete", "failed", "cancelled");

const OTHERS: Fields = { offset: isOptional(isCount), parts: isOptional(Array.isArray) };

/** The fields of each event besides `messageId`; those of the parts are in their rules. */
const FIELDS: Readonly<Record<string, Fields | undefined>> = {
  "stream.started": { model: isString },
  "token.received": { token: isString, tokenIndex: isCount, tokenCount: isOptional(isPositive) },
  "stream.completed": { totalTokens: isCount, usage: isAnything },
  "stream.failed": { error: isString, code: isOptional(isString) },
  "stream.cancelled": {},
  "stream.snapshot": {
    ...{ text: isString, nextIndex: isCount, status: isStatus },
    ...OTHERS,
  },
};

const LOG_FIELDS: Fields = {
  tokens: isListOf(isString),
  nextIndex: isCount,
  status: isStatus,
  ...OTHERS,
};

/** How the parts of a reply besides its text are checked. */
export interface PartParser {
  /** The fields of each event besides `messageId`. */
  readonly fields: Readonly<Record<string, Fields>>;
  /** Check the parts of a snapshot or a log. */
  parse(fields: object): object;
}

export const TEXT_PARSER: PartParser = { fields: {}, parse: (fields) => fields };

/** Every event to listen for. */
export const frameTypes = (parts: PartParser = TEXT_PARSER): readonly string[] =>
  Object.keys({ ...FIELDS, ...parts.fields });

/** The event as a frame, or null if it is unknown, or its data is not what the event promises. */
export function parseFrame(
  type: string,
  data: unknown,
  parts: PartParser = TEXT_PARSER,
): Frame | null {
  const own = FIELDS[type] ?? parts.fields[type];
  const fields = own && pick({ messageId: isString, ...own }, data);
  return fields ? ({ type, ...parts.parse(fields) } as Frame) : null;
}

/** The body of a refetch, or null if it is not one. */
export function parseReplyLog(body: unknown, parts: PartParser = TEXT_PARSER): ReplyLog | null {
  const fields = pick(LOG_FIELDS, body);
  return fields && (parts.parse(fields) as ReplyLog);
}
