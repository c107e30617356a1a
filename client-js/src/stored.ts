/** What the server tells of stored conversations, checked at the border. */

import {
  isListOf,
  isNullOr,
  isObjectOf,
  isOneOf,
  isOptional,
  isString,
  pick,
  type Check,
  type Fields,
} from "./checks.js";
import { failure, FAILED_TEXT, type ApiError } from "./errors.js";
import type { Usage } from "./parts.js";
import { end, fresh, NO_PARTS, type Reply } from "./reply.js";
import type { Turn } from "./state.js";
import { keyOf } from "./tree.js";

/** A conversation in a list. Times are ISO 8601. */
export interface ConversationItem {
  readonly id: string;
  readonly title: string | null;
  readonly updatedAt: string;
}

interface StoredTurn {
  readonly message_id: string;
  readonly role: "user" | "assistant";
  readonly parent_id?: string | null;
  readonly content: string;
  readonly status: string;
  readonly created_at: string;
  readonly model?: string | null;
  readonly usage?: Usage | null;
}

/** A conversation with the turns of one page, oldest first. */
export interface TurnPage {
  readonly title: string | null;
  readonly turns: readonly Turn[];
  readonly next: string | null;
}

export interface ItemPage {
  readonly items: readonly ConversationItem[];
  readonly next: string | null;
}

/** Another tab has sent a message, or asked for another reply to it. */
export interface MessageCreated {
  readonly conversationId: string;
  readonly messageId: string;
  readonly parentId?: string;
  readonly message?: string;
  readonly regenerate?: boolean;
  readonly truncated?: boolean;
}

export interface ConversationChanged {
  readonly conversationId: string;
  readonly updatedAt: string;
  readonly title?: string;
  readonly deleted?: boolean;
}

const isAnything: Check = () => true;
const maybeText = isOptional(isNullOr(isString));

const TURN: Fields = {
  ...{ message_id: isString, role: isOneOf("user", "assistant"), parent_id: maybeText },
  ...{ content: isString, status: isString, created_at: isString },
  ...{ model: maybeText, usage: isAnything },
};

const TURNS: Fields = {
  ...{ title: maybeText, next: maybeText },
  turns: isListOf(isObjectOf(TURN)),
};

const ITEM: Fields = { id: isString, title: maybeText, updated_at: isString };

const ITEMS: Fields = { conversations: isListOf(isObjectOf(ITEM)), next: maybeText };

const CREATED: Fields = {
  ...{ conversationId: isString, messageId: isString },
  ...{ parentId: isOptional(isString), message: isOptional(isString) },
  ...{ regenerate: isAnything, truncated: isAnything },
};

const CHANGED: Fields = {
  ...{ conversationId: isString, updatedAt: isString },
  ...{ title: isOptional(isString), deleted: isAnything },
};

/** In the server's words for having no database at all. */
const NO_DATABASE = "chat.database_url";

/** True if the server keeps no conversations; one whose database does not answer now does. */
export const hasNoDatabase = ({ status, said }: ApiError): boolean =>
  status === 503 && typeof said === "string" && said.includes(NO_DATABASE);

export const parseCreated = (data: unknown): MessageCreated | null =>
  pick(CREATED, data) as MessageCreated | null;

export const parseChanged = (data: unknown): ConversationChanged | null =>
  pick(CHANGED, data) as ConversationChanged | null;

/** The body of `GET /api/conversations`, or null if it is not one. */
export function parseItems(body: unknown): ItemPage | null {
  const page = pick(ITEMS, body) as {
    readonly conversations: readonly { id: string; title?: string | null; updated_at: string }[];
    readonly next?: string | null;
  } | null;
  if (!page) return null;
  const items = page.conversations.map(({ id, title = null, updated_at: updatedAt }) => ({
    ...{ id, title, updatedAt },
  }));
  return { items, next: page.next ?? null };
}

/** The body of `GET /api/conversations/{id}`, or null if it is not one. */
export function parseTurns(body: unknown, conversation: string): TurnPage | null {
  const page = pick(TURNS, body) as {
    readonly title?: string | null;
    readonly next?: string | null;
    readonly turns: readonly StoredTurn[];
  } | null;
  if (!page) return null;
  const asked = new Map(
    page.turns
      .filter(({ role }) => role === "user")
      .map((turn) => [turn.message_id, time(turn.created_at)]),
  );
  const turns = page.turns
    .map((turn) => toTurn(turn, conversation, asked.get(turn.message_id)))
    .reverse();
  return { title: page.title ?? null, next: page.next ?? null, turns };
}

function toTurn(stored: StoredTurn, conversation: string, askedAt: number | undefined): Turn {
  const { message_id: messageId, role, content: text } = stored;
  const named = { messageId, conversation, parent: stored.parent_id ?? undefined };
  const key = keyOf(role, messageId);
  const at = time(stored.created_at);
  if (role === "user") return { role, key, text, ...named };
  const { model = null, usage = null } = stored;
  const log = { ...NO_PARTS, isUnread: true };
  const reply: Reply = { ...fresh(key, null, askedAt ?? at), ...named, model, usage };
  const ended = { ...reply, log };
  switch (stored.status) {
    case "complete":
    case "cancelled":
      return { ...end(ended, stored.status, at), text };
    case "failed":
      return { ...end(ended, stored.status, at, failure(FAILED_TEXT)), text };
    default:
      return reply; // its text is read from its log
  }
}

const time = (text: string): number => {
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? Date.now() : ms;
};
