/** The user's conversations on the server as an observable store, newest first. */

import { createApi, type ApiOptions } from "./api.js";
import { follow, type EchoLike, type PusherLike } from "./connection.js";
import { ApiError, FAILED_TEXT } from "./errors.js";
import { createListeners } from "./listeners.js";
import {
  hasNoDatabase,
  parseChanged,
  parseCreated,
  parseItems,
  type ConversationItem,
} from "./stored.js";
import type { ChatError } from "./thread.js";

export interface ConversationsOptions extends ApiOptions {
  readonly userId: number | string;
  /** As for a chat; default `window.Echo`. */
  readonly echo?: EchoLike | PusherLike | (() => EchoLike | PusherLike) | undefined;
  /** How many are read at a time; default 30. */
  readonly limit?: number | undefined;
}

/** What a page shows. Never changed: each change makes a new one. */
export interface ConversationsSnapshot {
  readonly items: readonly ConversationItem[];
  /** What is searched for; empty for all. */
  readonly query: string;
  readonly isLoading: boolean;
  readonly hasMore: boolean;
  /** True if the server keeps no conversations. */
  readonly isOff: boolean;
  /** Why the last call failed. */
  readonly error: ChatError | null;
}

/** What a chat of this tab is told, which events leave out. */
interface Link {
  renamed(id: string, title: string): void;
  removed(id: string): void;
}

/** The functions need no `this`. */
export interface ConversationList {
  readonly getSnapshot: () => ConversationsSnapshot;
  /** Call `listener` after each change; the returned function ends that. The first one makes the list be read. */
  readonly subscribe: (listener: () => void) => () => void;
  readonly loadMore: () => Promise<void>;
  /** List only those whose title or texts contain `text`; all if it is empty. A later call overtakes an earlier one. */
  readonly search: (text: string) => Promise<void>;
  /** False if it failed; then it has its old title again. */
  readonly rename: (id: string, title: string) => Promise<boolean>;
  /** False if it failed; then it is back. */
  readonly remove: (id: string) => Promise<boolean>;
  /** Read it anew. */
  readonly refresh: () => Promise<void>;
  readonly close: () => void;
  /** Move a conversation to the top; a new one is named by the first words of `text`. A chat does this. */
  readonly touch: (id: string, text?: string) => void;
  /** For a chat of the same tab. */
  readonly link: (chat: Link) => void;
}

const MAX_WORDS = 60;

const EMPTY: ConversationsSnapshot = {
  ...{ items: [], query: "", isLoading: false, hasMore: false, isOff: false, error: null },
};

/** Make a list. Nothing happens before somebody subscribes. */
export function createConversations(options: ConversationsOptions): ConversationList {
  const { userId, limit = 30 } = options;
  const api = createApi(options);
  const listeners = createListeners(
    () => {
      open();
    },
    () => {
      close();
    },
  );
  const links = new Set<Link>();
  let snapshot = EMPTY;
  let next: string | null = null;
  let asked = 0;
  let socketId: string | undefined;
  let stopFollowing: (() => void) | undefined;

  const update = (change: Partial<ConversationsSnapshot>): void => {
    snapshot = { ...snapshot, ...change };
    listeners.notify();
  };

  /** Read a page; what another call has overtaken comes to nothing. */
  const read = async (isMore: boolean): Promise<void> => {
    const mine = (asked += 1);
    const query = new URLSearchParams({ limit: String(limit) });
    if (snapshot.query !== "") query.set("q", snapshot.query);
    if (isMore && next !== null) query.set("before", next);
    update({ isLoading: true });
    try {
      const page = parseItems(await api.call("GET", `conversations?${query.toString()}`));
      if (!page) throw new ApiError(FAILED_TEXT, 200);
      if (mine !== asked) return;
      next = page.next;
      const items = isMore ? added(snapshot.items, page.items) : page.items;
      update({ items, hasMore: next !== null, isLoading: false, isOff: false, error: null });
    } catch (error) {
      if (mine === asked) update({ isLoading: false, ...failed(error) });
    }
  };

  const touch = (id: string, text?: string, updatedAt = new Date().toISOString()): void => {
    const { items, query } = snapshot;
    const known = items.find((item) => item.id === id);
    if (!known && query !== "") return; // nobody knows whether it matches
    const item = known ?? { id, title: firstWords(text ?? "") || null, updatedAt };
    update({ items: [{ ...item, updatedAt }, ...items.filter((other) => other.id !== id)] });
  };

  const rename = (id: string, title: string | null): void => {
    update({
      items: snapshot.items.map((item) => (item.id === id ? { ...item, title } : item)),
    });
  };

  const drop = (id: string): void => {
    update({ items: snapshot.items.filter((item) => item.id !== id) });
  };

  const receive = (name: string, data: unknown): void => {
    if (name === "message.created") {
      const created = parseCreated(data);
      if (created) touch(created.conversationId, created.message);
      return;
    }
    const changed = name === "conversation.changed" ? parseChanged(data) : null;
    if (!changed) return;
    const { conversationId: id, title, deleted, updatedAt } = changed;
    if (deleted) drop(id);
    else if (snapshot.items.some((item) => item.id === id)) rename(id, title ?? null);
    else touch(id, title, updatedAt);
  };

  /** Change a conversation on the server; false if that failed, and why is shown. */
  const change = async (method: string, id: string, body?: object): Promise<boolean> => {
    // Left out of the event, this tab's chat has to be told; without one, the event tells whoever listens.
    const headers = links.size > 0 && socketId !== undefined ? { "X-Socket-ID": socketId } : {};
    try {
      await api.call(method, `conversations/${encodeURIComponent(id)}`, body, headers);
      return true;
    } catch (error) {
      if (method === "DELETE" && error instanceof ApiError && error.gone) return true;
      update(failed(error));
      return false;
    }
  };

  const open = (): void => {
    if (stopFollowing) return;
    const { echo = (globalThis as unknown as { Echo: EchoLike }).Echo } = options;
    stopFollowing = follow(typeof echo === "function" ? echo() : echo, String(userId), {
      onEvent: receive,
      onConnection(connection, id) {
        socketId = id;
        if (connection === "live") void read(false); // events of the time without connection are lost
      },
    });
    if (asked === 0) void read(false);
  };

  const close = (): void => {
    stopFollowing?.();
    stopFollowing = undefined;
  };

  return {
    getSnapshot: () => snapshot,
    subscribe: listeners.subscribe,
    async loadMore() {
      if (snapshot.hasMore && !snapshot.isLoading) await read(true);
    },
    async search(text) {
      const query = text.trim();
      if (query === snapshot.query) return;
      update({ query });
      await read(false);
    },
    async rename(id, title) {
      const before = snapshot.items.find((item) => item.id === id)?.title ?? null;
      const line = title.replace(/\s+/g, " ").trim();
      rename(id, line);
      const isDone = await change("PATCH", id, { title: line });
      if (!isDone) rename(id, before);
      else for (const link of links) link.renamed(id, line);
      return isDone;
    },
    async remove(id) {
      const { items } = snapshot;
      drop(id);
      const isDone = await change("DELETE", id);
      if (!isDone) update({ items: restored(snapshot.items, items, id) });
      else for (const link of links) link.removed(id);
      return isDone;
    },
    refresh: () => read(false),
    close,
    touch: (id, text) => {
      touch(id, text);
    },
    link(chat) {
      links.add(chat);
    },
  };
}

const added = (
  items: readonly ConversationItem[],
  more: readonly ConversationItem[],
): readonly ConversationItem[] => {
  const known = new Set(items.map(({ id }) => id));
  return [...items, ...more.filter(({ id }) => !known.has(id))];
};

/** The items with the one that was there before, in its place by time. */
function restored(
  items: readonly ConversationItem[],
  before: readonly ConversationItem[],
  id: string,
): readonly ConversationItem[] {
  const lost = before.find((item) => item.id === id);
  if (!lost || items.some((item) => item.id === id)) return items;
  const index = items.findIndex(({ updatedAt }) => updatedAt < lost.updatedAt);
  return index < 0 ? [...items, lost] : [...items.slice(0, index), lost, ...items.slice(index)];
}

function failed(error: unknown): Pick<ConversationsSnapshot, "isOff" | "error"> {
  const known = error instanceof ApiError ? error : new ApiError(FAILED_TEXT, 400);
  const isOff = hasNoDatabase(known);
  return { isOff, error: isOff ? null : { kind: known.kind, text: known.message } };
}

/** As the server makes a title: whole words, unless the first is too long. */
function firstWords(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  if (line.length <= MAX_WORDS) return line;
  const words = line.slice(0, MAX_WORDS).replace(/ [^ ]*$/, "");
  return `${words.slice(0, MAX_WORDS - 1)}…`;
}
