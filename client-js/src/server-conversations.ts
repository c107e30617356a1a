/** A chat whose conversation the server keeps: its branches, its pages, and what other tabs do in it. */

import { ApiError, FAILED_TEXT } from "./errors.js";
import type { ConversationList } from "./conversation-list.js";
import { randomId } from "./ids.js";
import { fresh, isOpen, type Place, type Reply, type UserTurn } from "./reply.js";
import { isActive, isReply, type Turn } from "./state.js";
import {
  hasNoDatabase,
  parseChanged,
  parseCreated,
  parseTurns,
  type MessageCreated,
} from "./stored.js";
import type {
  ConversationState,
  Saved,
  ServerConversations,
  Thread,
  ThreadHost,
} from "./thread.js";
import { keyOf, merged, newestIn, pathTo, shownOf, treeOf } from "./tree.js";

export interface ServerConversationsOptions {
  /** The list that this tab shows, which then moves a conversation to its top as soon as something is sent. */
  readonly list?: ConversationList | undefined;
}

const PAGE = 100;
/** As many older pages are read to find the branch that was open. */
const MAX_PAGES = 20;
/** Of so many replies the server's log is read for their parts, which its database does not have. */
const MAX_RECENT = 10;
/** The default of `worker.retention`: older logs are gone. */
const RECENT_MS = 3_600_000;
const RETRY_MS = 2000;
const MAX_RETRY_MS = 60_000;

const NEW: ConversationState = {
  ...{ id: null, title: null, isStored: true, isLoading: false },
  ...{ hasEarlier: false, isGone: false, error: null },
};

/** For the `conversations` option of a chat. */
export const serverConversations =
  ({ list }: ServerConversationsOptions = {}): ServerConversations =>
  (host) =>
    new ServerThread(host, list);

class ServerThread implements Thread {
  readonly #host: ThreadHost;
  readonly #list: ConversationList | undefined;
  #state = NEW;
  /** Of what is open, also before the server knows of it. */
  #id = randomId();
  /** The turn whose branch is shown; null for the newest. */
  #leaf: string | null = null;
  #progress: "new" | "restored" | "unread" | "read" = "new";
  #isReady = false;
  #socket: { isLive: boolean; id?: string | undefined } = { isLive: false };
  /** Where the next older page begins. */
  #next: string | null = null;
  /** Counts what is opened: an answer for what was open before comes to nothing. */
  #opened = 0;
  #again: { timer?: ReturnType<typeof setTimeout>; wait: number } = { wait: RETRY_MS };

  constructor(host: ThreadHost, list?: ConversationList) {
    this.#host = host;
    this.#list = list;
    list?.link({
      removed: (id) => {
        if (id === this.#id) this.#leave();
      },
      renamed: (id, title) => {
        if (id === this.#id) this.#show({ title });
      },
    });
  }

  isReady = (): boolean => this.#isReady;

  headers(): object {
    const { id } = this.#socket;
    return id === undefined ? {} : { "X-Socket-ID": id };
  }

  path(): readonly Turn[] {
    return shownOf(this.#own(), this.#leaf);
  }

  place(key: string, instead?: string): Place {
    if (this.#state.isGone) this.#begin();
    const own = treeOf(this.#own());
    const turn = instead === undefined ? undefined : own.find(instead);
    const last = this.path().filter(isReply).at(-1);
    const isKnown = this.#progress === "new" || this.#progress === "read";
    this.#leaf = key;
    if (this.#state.id === null) this.#show({ id: this.#id });
    const parent = turn ? turn.parent : (last?.key ?? (isKnown ? "" : undefined));
    return { conversation: this.#id, parent };
  }

  again(key: string, again: boolean): boolean {
    const turns = this.#host.turns();
    const reply = turns.find((turn) => turn.key === key);
    if (!reply || !isReply(reply) || isOpen(reply) || reply.messageId === null) return false;
    if (!again && reply.status !== "failed") return true;
    const { conversation, parent } = reply;
    const request = { id: randomId(), history: [] };
    const sibling = { ...fresh(randomId(), request, Date.now()), conversation, parent };
    this.#leaf = sibling.key;
    this.#host.update([...turns, { ...sibling, status: "unsent" }]);
    return true;
  }

  to(reply: Reply, user: UserTurn): object | undefined {
    const { conversation } = reply;
    const named = { conversation_id: conversation };
    if (user.messageId)
      return { ...named, message: undefined, regenerate: true, parent_id: user.messageId };
    const isOther = conversation !== this.#id;
    if (user.parent === undefined) return isOther || this.#progress === "read" ? named : undefined;
    const tree = treeOf(this.#host.turns());
    const before = pathTo(tree, user).slice(0, -1).reverse();
    if (before.some(isActive)) return undefined; // it can only be followed when it has ended
    const heard = before.find((turn) => isReply(turn) && turn.messageId !== null);
    const first = before.at(-1) ?? user;
    return { ...named, parent_id: heard?.messageId ?? first.parent ?? "" };
  }

  accepted(key: string): void {
    const turns = this.#host.turns();
    const reply = turns.find((turn) => turn.key === key);
    const messageId = reply?.messageId;
    if (!reply || !messageId) return;
    const user = treeOf(turns).parentOf(reply);
    const isAsked = (turn: Turn): boolean => turn === user && !turn.messageId;
    const named = new Set([key, ...(user ? [user.key] : [])]);
    // What came from elsewhere before the answer was known to be its own.
    const isTwin = (turn: Turn): boolean => turn.messageId === messageId && !named.has(turn.key);
    const twin = turns.filter(isTwin).find(isReply);
    this.#host.update(
      turns
        .filter((turn) => !isTwin(turn))
        .map((turn) => {
          if (isAsked(turn)) return { ...turn, messageId };
          if (turn !== reply || !twin || twin.nextIndex <= (reply as Reply).nextIndex) return turn;
          return { ...twin, key, parent: reply.parent };
        }),
    );
    if (reply.conversation === this.#id && this.#progress === "new") this.#progress = "read";
    if (reply.conversation !== undefined) this.#list?.touch(reply.conversation, user?.text);
  }

  receive(name: string, data: unknown): void {
    if (name === "message.created") {
      const created = parseCreated(data);
      if (created?.conversationId === this.#id) this.#create(created);
      return;
    }
    const changed = name === "conversation.changed" ? parseChanged(data) : null;
    if (changed?.conversationId !== this.#id) return;
    if (changed.deleted) this.#leave();
    else if (changed.title !== undefined) this.#show({ title: changed.title });
  }

  setLive(isLive: boolean, id: string | undefined): void {
    this.#socket = { isLive, id };
    this.#again.wait = RETRY_MS;
    if (isLive) void this.#read();
  }

  restore(saved: Saved | null): void {
    const isOwn = saved?.leaf !== undefined;
    if (saved && isOwn) {
      // The id of a new conversation stays with its tab: another one would take it for its own, unread.
      if (saved.leaf !== null) this.#id = saved.sessionId;
      this.#progress = saved.leaf === null ? "new" : "restored";
      this.#leaf = saved.leaf ?? null;
      if (this.#leaf === "") this.#leaf = null;
    }
    this.#show({ id: this.#progress === "new" ? null : this.#id });
    this.#host.update(saved && isOwn ? saved.turns : []);
  }

  /** What the server does not have yet. */
  saved(): Saved | null {
    const turns = this.#host.turns();
    const tree = treeOf(turns);
    const pairs = turns.filter(isPending).flatMap((reply) => {
      const user = tree.parentOf(reply);
      return user && !user.messageId ? [user, reply] : [];
    });
    const leaf = this.#leaf === null ? undefined : tree.find(this.#leaf);
    return {
      sessionId: this.#id,
      turns: settled(turns, [...new Set(pairs)]),
      leaf:
        this.#state.id === null ? null : leaf?.messageId ? keyOf(leaf.role, leaf.messageId) : "",
    };
  }

  open(id: string | null): void {
    if (id !== null && id === this.#state.id && !this.#state.isGone) return;
    this.#begin(id);
    void this.#read();
  }

  switchBranch(key: string, step: number): void {
    const tree = treeOf(this.#own());
    const turn = tree.find(key);
    const siblings = turn ? tree.siblingsOf(turn) : [];
    const next = turn && siblings[siblings.indexOf(turn) + step];
    if (!next) return;
    this.#leaf = next.key;
    this.#host.update(this.#host.turns());
  }

  async loadEarlier(): Promise<void> {
    const [before, opened] = [this.#next, this.#opened];
    if (before === null || this.#state.isLoading) return;
    this.#show({ isLoading: true });
    try {
      await this.#readPage(before, opened);
    } catch (error) {
      if (opened === this.#opened) this.#show({ error: errorOf(error) });
    } finally {
      if (opened === this.#opened) this.#show({ isLoading: false });
    }
  }

  close(): void {
    clearTimeout(this.#again.timer);
    this.#socket = { isLive: false };
  }

  #own(): readonly Turn[] {
    return this.#host.turns().filter((turn) => turn.conversation === this.#id);
  }

  #show(change: Partial<ConversationState>): void {
    this.#state = { ...this.#state, ...change };
    this.#host.show(this.#state);
  }

  /** Turn to another conversation; what is not sent yet in this one stays to be sent. */
  #begin(id: string | null = null): void {
    const turns = this.#host.turns();
    const tree = treeOf(turns);
    const pending = turns.filter(isPending);
    const kept = new Set(pending.flatMap((reply) => [tree.parentOf(reply), reply]));
    this.#opened += 1;
    this.#id = id ?? randomId();
    this.#progress = id === null ? "new" : "unread";
    this.#leaf = this.#next = null;
    this.#show({ ...NEW, id });
    this.#host.update(
      settled(
        turns,
        turns.filter((turn) => kept.has(turn)),
      ),
    );
  }

  /** It was deleted, or never was. */
  #leave(): void {
    const own = this.#own();
    this.#opened += 1;
    this.#next = null;
    this.#show({ isGone: true, isLoading: false, hasEarlier: false });
    this.#host.update(this.#host.turns().filter((turn) => !own.includes(turn)));
  }

  /** Read the newest turns, or, for a new conversation, whether the server keeps any. */
  async #read(): Promise<void> {
    clearTimeout(this.#again.timer);
    const opened = this.#opened;
    if (!this.#socket.isLive || this.#state.isGone) return;
    try {
      if (this.#progress !== "new") {
        if (this.#progress !== "read") this.#show({ isLoading: true });
        await this.#readPage(null, opened);
        await this.#findLeaf(opened);
      } else if (!this.#isReady) await this.#host.api.call("GET", "conversations?limit=1");
      if (opened !== this.#opened) return;
      if (this.#progress !== "new") this.#progress = "read";
      this.#again.wait = RETRY_MS;
      this.#ready();
    } catch (error) {
      if (opened === this.#opened) this.#failed(error);
    }
  }

  #ready(): void {
    this.#isReady = true;
    this.#show({ isLoading: false, error: null });
    this.#host.update(this.#host.turns()); // what waited for this is sent now
  }

  #failed(error: unknown): void {
    const known = error instanceof ApiError ? error : null;
    if (known?.status === 404) {
      this.#missing();
    } else if (known && hasNoDatabase(known) && !this.#isReady) {
      this.#show({ ...NEW, isStored: false });
      this.#host.fallBack();
    } else {
      this.#show({ isLoading: false, error: errorOf(error) });
      this.#again.timer = setTimeout(() => void this.#read(), this.#again.wait);
      this.#again.wait = Math.min(this.#again.wait * 2, MAX_RETRY_MS);
    }
  }

  /** The server does not have what is open. */
  #missing(): void {
    if (this.#own().some(isActive)) {
      this.#progress = "read"; // it begins with what is being made or is not sent yet
    } else if (this.#progress === "restored") {
      this.#begin();
    } else {
      this.#leave();
    }
    this.#ready();
  }

  async #readPage(before: string | null, opened: number): Promise<void> {
    const id = this.#id;
    const query = before === null ? "" : `&before=${encodeURIComponent(before)}`;
    const path = `conversations/${encodeURIComponent(id)}?limit=${String(PAGE)}${query}`;
    const page = parseTurns(await this.#host.api.call("GET", path), id);
    if (opened !== this.#opened) return;
    if (!page) throw new ApiError(FAILED_TEXT, 200);
    const known = new Set(
      this.#own().flatMap(({ role, messageId }) => (messageId ? [keyOf(role, messageId)] : [])),
    );
    const isNext =
      before !== null || page.turns.some((turn) => known.has(turn.key)) || known.size === 0;
    // So much has happened since that what is known has no link to it.
    const turns = isNext
      ? this.#host.turns()
      : this.#host.turns().filter((turn) => turn.conversation !== id || !turn.messageId);
    if (before !== null || known.size === 0 || !isNext) this.#next = page.next;
    this.#show({ title: page.title, hasEarlier: this.#next !== null });
    this.#host.update(this.#joined(merged(turns, page.turns, before !== null)));
    const added = page.turns.filter(isReply).filter((turn) => !known.has(turn.key));
    const recent = added.filter(({ endedAt }) => (endedAt ?? 0) > Date.now() - RECENT_MS);
    for (const turn of recent.slice(-MAX_RECENT)) this.#refetch(turn);
    for (const turn of page.turns) if (isActive(turn)) this.#refetch(turn);
  }

  #refetch({ messageId }: Reply): void {
    const reply = this.#own().find((turn) => isReply(turn) && turn.messageId === messageId);
    if (reply) void this.#host.refetch(reply.key);
  }

  /** Turns that were written before it was known what they follow. */
  #joined(turns: readonly Turn[]): readonly Turn[] {
    const own = turns.filter((turn) => turn.conversation === this.#id && turn.parent !== undefined);
    const stored = own.filter((turn) => turn.messageId);
    const last = newestIn(treeOf(stored), undefined);
    const parent = last ? (isReply(last) ? last.key : last.parent) : "";
    return turns.map((turn) =>
      turn.conversation === this.#id && turn.parent === undefined && !turn.messageId
        ? { ...turn, parent }
        : turn,
    );
  }

  /** Read older pages until the branch that was open is known. */
  async #findLeaf(opened: number): Promise<void> {
    for (let left = MAX_PAGES; left > 0; left -= 1) {
      const isKnown = this.#leaf === null || treeOf(this.#own()).find(this.#leaf);
      if (isKnown || this.#next === null || opened !== this.#opened) return;
      await this.#readPage(this.#next, opened);
    }
  }

  /** Show what another tab has sent. */
  #create({ messageId, parentId, message, regenerate, truncated }: MessageCreated): void {
    const turns = this.#host.turns();
    if (turns.some((turn) => turn.messageId === messageId)) return;
    const conversation = this.#id;
    const last = this.#own()
      .filter((turn) => isReply(turn) && !isOpen(turn))
      .at(-1);
    const follows = parentId ?? last?.messageId ?? "";
    const place = { conversation, messageId, parent: regenerate ? follows : messageId };
    const reply = { ...fresh(keyOf("assistant", messageId), null, Date.now()), ...place };
    const user: UserTurn = {
      ...{ role: "user", key: keyOf("user", messageId), text: message ?? "" },
      ...{ conversation, messageId, parent: follows },
    };
    this.#progress = this.#progress === "new" ? "read" : this.#progress;
    this.#host.update([...turns, ...(regenerate ? [] : [user]), reply]);
    if (truncated) void this.#read();
  }
}

const isPending = (turn: Turn): turn is Reply =>
  isReply(turn) && turn.messageId === null && (isOpen(turn) || turn.request !== null);

/** These of the turns, which name those before them by their messages: the others may be forgotten. */
function settled(turns: readonly Turn[], some: readonly Turn[]): readonly Turn[] {
  const tree = treeOf(turns);
  return some.map((turn) => {
    const id = tree.parentOf(turn)?.messageId;
    return id ? { ...turn, parent: id } : turn;
  });
}

const errorOf = (error: unknown): ConversationState["error"] => {
  const { kind, message } =
    error instanceof ApiError ? error : ({ kind: "failed", message: FAILED_TEXT } as const);
  return { kind, text: message };
};
