/** A server that keeps conversations, as far as a client can tell: stored turns, branches, pages, events. */

import type { Answer, ChatServer, Seen } from "./server.js";

interface Stored {
  readonly message_id: string;
  readonly role: "user" | "assistant";
  readonly parent_id: string;
  content: string;
  status: string;
  readonly created_at: string;
}

export interface Kept {
  title: string | null;
  updatedAt: string;
  /** In the order in which they were stored. */
  readonly turns: Stored[];
}

const at = (seconds: number): string => new Date(1.8e12 + 1000 * seconds).toISOString();

const NOT_FOUND: Answer = { status: 404, body: { message: "No such conversation." } };

export class Archive {
  readonly kept = new Map<string, Kept>();
  /** How many turns are told at a time. */
  page = 100;
  #clock = 0;
  #sent = 0;

  constructor(private readonly server: ChatServer) {
    server.send = (seen) => this.#send(seen);
    server.conversations = (seen) => this.#answer(seen);
  }

  /** Add turns that are stored already: `[message, role, parent, text]`. */
  add(
    id: string,
    ...turns: readonly (readonly [string, "user" | "assistant", string, string])[]
  ): void {
    const kept = this.#open(id);
    for (const [message_id, role, parent_id, content] of turns) {
      const created_at = at((this.#clock += 1));
      kept.turns.push({ message_id, role, parent_id, content, status: "complete", created_at });
      kept.updatedAt = created_at;
    }
  }

  /** A message arrives, from this tab or another: both of its turns are there at once, the reply running. */
  create(id: string, messageId: string, parent: string, message: string | undefined): void {
    const kept = this.#open(id);
    const created_at = at((this.#clock += 1));
    const common = { message_id: messageId, created_at };
    if (message !== undefined)
      kept.turns.push({
        ...{ ...common, role: "user", parent_id: parent, content: message },
        status: "complete",
      });
    kept.turns.push({
      ...{ ...common, role: "assistant", content: "", status: "streaming" },
      parent_id: message === undefined ? parent : messageId,
    });
    kept.updatedAt = created_at;
  }

  /** The reply of a message ends with this text, which goes to all tabs as one token. */
  finish(messageId: string, text: string): void {
    for (const { turns } of this.kept.values())
      for (const turn of turns)
        if (turn.message_id === messageId && turn.role === "assistant")
          Object.assign(turn, { content: text, status: "complete" });
    this.server.emit("token.received", { messageId, token: text, tokenIndex: 0 });
    this.server.emit("stream.completed", { messageId, totalTokens: 1 });
  }

  #open(id: string): Kept {
    const kept = this.kept.get(id) ?? { title: null, updatedAt: at(this.#clock), turns: [] };
    this.kept.set(id, kept);
    return kept;
  }

  #send({ body }: Seen): Answer {
    const messageId = `m${String((this.#sent += 1))}`;
    const { conversation_id: id, parent_id: parent, message, regenerate } = body;
    if (id === undefined) return { body: { message_id: messageId } };
    const last = this.kept
      .get(id)
      ?.turns.filter(({ role }) => role === "assistant")
      .at(-1);
    this.create(id, messageId, parent ?? last?.message_id ?? "", regenerate ? undefined : message);
    return { body: { message_id: messageId } };
  }

  #answer({ method, path, body }: Seen): Answer {
    const url = new URL(path, "http://x");
    const id = decodeURIComponent(url.pathname.split("/")[3] ?? "");
    if (id === "") return this.#list(url.searchParams);
    const kept = this.kept.get(id);
    if (!kept) return NOT_FOUND;
    if (method === "DELETE") {
      this.kept.delete(id);
      return { body: { deleted: true } };
    }
    if (method === "PATCH") kept.title = (body as unknown as { title: string }).title;
    const { title, updatedAt: updated_at } = kept;
    const told = { id, title, created_at: at(0), updated_at };
    return { body: method === "GET" ? { ...told, ...this.#turns(kept, url.searchParams) } : told };
  }

  #turns({ turns }: Kept, query: URLSearchParams): object {
    const end = Number(query.get("before") ?? turns.length);
    const start = Math.max(0, end - Math.min(this.page, Number(query.get("limit"))));
    const page = turns.slice(start, end).reverse();
    return { turns: page, next: start > 0 ? String(start) : null };
  }

  #list(query: URLSearchParams): Answer {
    const wanted = query.get("q") ?? "";
    const all = [...this.kept]
      .map(([id, { title, updatedAt }]) => ({
        id,
        title,
        created_at: at(0),
        updated_at: updatedAt,
      }))
      .filter(({ title }) => (title ?? "").includes(wanted))
      .sort((a, b) => (a.updated_at < b.updated_at ? 1 : -1));
    const start = Number(query.get("before") ?? 0);
    const end = start + Number(query.get("limit"));
    return {
      body: { conversations: all.slice(start, end), next: end < all.length ? String(end) : null },
    };
  }
}
