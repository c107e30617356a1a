/** The Alpine component: `Alpine.data("legatoChat", legatoChat)` over a stock Echo instance. */

import { Api, type ApiOptions } from "./api.js";
import { Conversation, type Gap } from "./conversation.js";
import { FRAME_TYPES, parseFrame } from "./frames.js";
import { tooLong } from "./limits.js";
import { isActive, isReply, type Reply, type Status, type Turn } from "./reducer.js";
import type { TextStorage } from "./storage.js";

/** What is used of an Echo channel. */
export interface EchoChannel {
  listen(event: string, callback: (data: unknown) => void): unknown;
  stopListening(event: string, callback?: (data: unknown) => void): unknown;
  subscribed(callback: () => void): unknown;
  error(callback: (error: unknown) => void): unknown;
  /** pusher-js's own channel: true if somebody subscribed before us. */
  readonly subscription?: { readonly subscribed: boolean };
}

/** What is used of an Echo instance. */
export interface EchoLike {
  private(channel: string): EchoChannel;
  connectionStatus(): string;
  readonly connector: { onConnectionChange(callback: (status: string) => void): () => void };
}

export interface ChatOptions extends ApiOptions {
  readonly userId: number | string;
  /** Default: `window.Echo`, where stock apps put it. */
  readonly echo?: EchoLike;
  /** Where the conversation is kept; default `sessionStorage`; null to keep nothing. */
  readonly storage?: TextStorage | null;
  readonly onGap?: (gap: Gap) => void;
  readonly silenceMs?: number;
  readonly maxSilences?: number;
  readonly maxMessage?: number;
}

/** `live`: the subscription is confirmed, and sending is possible. `refused`: the server said no. */
export type Connection = "connecting" | "live" | "offline" | "refused";

export interface ChatComponent {
  turns: readonly Turn[];
  draft: string;
  connection: Connection;
  /** One line for a screen reader's live region; changes with a reply's status, not with each token. */
  announcement: string;
  /** Milliseconds; moves only while a reply is being made. */
  now: number;
  readonly subscribed: boolean;
  readonly active: Reply | undefined;
  readonly canSend: boolean;
  /** Why the draft cannot be sent, for people: it is too long. Empty if it is not. */
  readonly tooLong: string;
  init(): void;
  destroy(): void;
  /**
   * Send `text`, or what stands in `draft`. Does nothing unless {@link canSend}; what is too long stays, and the
   * {@link announcement} says so.
   */
  send(text?: string): void;
  stop(): void;
  retry(key: string): void;
  clear(): void;
  /** How long a reply took, or takes so far, such as `3.2 s`. */
  elapsed(reply: Reply): string;
}

const TICK_MS = 100;

/** Make a component. Alpine calls `init` and `destroy`; a second `init` (a page's own `x-init`) does nothing. */
export function legatoChat(options: ChatOptions): ChatComponent {
  // What Alpine must not make reactive lives here, not on the component.
  let conversation: Conversation | null = null;
  let cleanups: (() => void)[] = [];
  let clock: ReturnType<typeof setInterval> | undefined;

  return {
    turns: [],
    draft: "",
    connection: "connecting",
    announcement: "",
    now: Date.now(),

    get subscribed() {
      return this.connection === "live";
    },

    get active() {
      return this.turns.find(isActive);
    },

    get canSend() {
      return this.subscribed && !this.active;
    },

    get tooLong() {
      return tooLong(this.draft.trim(), options.maxMessage);
    },

    init() {
      if (conversation) return;
      const tick = (): void => {
        this.now = Date.now();
      };
      let shown: readonly Turn[] | null = null;
      const show = (turns: readonly Turn[]): void => {
        const news = announce(shown ?? turns, turns); // what was there before the refresh is none
        if (news !== undefined) this.announcement = news;
        this.turns = shown = turns;
        tick();
        if (this.active) {
          clock ??= setInterval(tick, TICK_MS);
        } else {
          clearInterval(clock);
          clock = undefined;
        }
      };
      const chat = open(options, show);
      conversation = chat;
      show(chat.turns);
      const setConnection = (connection: Connection): void => {
        this.connection = connection;
        if (connection === "live") void chat.resume();
      };
      cleanups = [
        connect(options, chat, setConnection),
        onPageHide(() => {
          chat.save();
        }),
      ];
    },

    destroy() {
      clearInterval(clock);
      cleanups.forEach((cleanup) => {
        cleanup();
      });
      conversation?.close();
      cleanups = [];
      conversation = null;
    },

    send(text) {
      const message = (text ?? this.draft).trim();
      if (!conversation || !this.canSend || message === "") return;
      const problem = tooLong(message, options.maxMessage);
      if (problem !== "") {
        this.announcement = problem;
        return;
      }
      if (text === undefined) this.draft = "";
      void conversation.send(message);
    },

    stop() {
      if (this.active) conversation?.cancel(this.active.key);
    },

    retry(key) {
      if (this.canSend) void conversation?.retry(key);
    },

    clear() {
      conversation?.clear();
    },

    elapsed(reply) {
      const ms = (reply.endedAt ?? Math.max(this.now, reply.startedAt)) - reply.startedAt;
      return `${(ms / 1000).toFixed(1)} s`;
    },
  };
}

function open(options: ChatOptions, onChange: (turns: readonly Turn[]) => void): Conversation {
  return new Conversation({
    api: new Api(options),
    storage: options.storage === undefined ? defaultStorage() : options.storage,
    storageKey: `legato-chat:${String(options.userId)}`,
    onChange,
    onGap: options.onGap,
    silenceMs: options.silenceMs,
    maxSilences: options.maxSilences,
    maxMessage: options.maxMessage,
  });
}

/** Listen on the user's channel and follow the connection; the returned function undoes it. */
function connect(
  options: ChatOptions,
  conversation: Conversation,
  setConnection: (connection: Connection) => void,
): () => void {
  const echo = options.echo ?? (globalThis as unknown as { Echo: EchoLike }).Echo;
  const channel = echo.private(`ai-chat.${String(options.userId)}`);
  let closed = false; // Echo cannot take back `subscribed` and `error` callbacks
  const set = (connection: Connection): void => {
    if (!closed) setConnection(connection);
  };
  const listeners = FRAME_TYPES.map((type) => {
    const listener = (data: unknown): void => {
      const frame = parseFrame(type, data);
      if (frame) conversation.receive(frame);
    };
    channel.listen(`.${type}`, listener);
    return () => channel.stopListening(`.${type}`, listener);
  });
  channel.subscribed(() => {
    set("live");
  });
  channel.error(() => {
    set("refused");
  });
  const stopFollowing = echo.connector.onConnectionChange((status) => {
    // Connected is not subscribed: only `subscribed` opens the gate.
    if (status !== "connected") set(status === "connecting" ? "connecting" : "offline");
  });
  if (channel.subscription?.subscribed) set("live");
  return () => {
    closed = true;
    stopFollowing();
    listeners.forEach((stop) => stop());
  };
}

const ANNOUNCEMENTS: Record<Status, (reply: Reply) => string> = {
  thinking: () => "Waiting for the reply.",
  streaming: () => "The reply is being written.",
  complete: (reply) => `Reply: ${reply.text}`,
  failed: (reply) => `The reply failed. ${reply.error ?? ""}`,
  cancelled: () => "The reply was stopped.",
};

/** The news of the reply whose status changed, wherever it stands; undefined if there are none. */
function announce(before: readonly Turn[], after: readonly Turn[]): string | undefined {
  if (after.length === 0) return "";
  const statuses = new Map(before.filter(isReply).map((reply) => [reply.key, reply.status]));
  const reply = after
    .filter(isReply)
    .filter(({ key, status }) => statuses.get(key) !== status)
    .at(-1);
  return reply && ANNOUNCEMENTS[reply.status](reply);
}

function defaultStorage(): TextStorage | null {
  try {
    return globalThis.sessionStorage;
  } catch {
    return null; // a browser that forbids storage throws on the mere access
  }
}

function onPageHide(callback: () => void): () => void {
  if (typeof addEventListener !== "function") return () => undefined;
  addEventListener("pagehide", callback);
  return () => {
    removeEventListener("pagehide", callback);
  };
}
