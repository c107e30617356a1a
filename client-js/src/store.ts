/** What every chat has: the snapshot, those who listen to it, and the way to the channel. */

import type { ApiOptions } from "./api.js";
import { follow, type Connection, type EchoLike, type PusherLike } from "./connection.js";
import { TEXTS } from "./errors.js";
import type { ExchangeOptions } from "./exchange.js";
import { createListeners } from "./listeners.js";
import type { MessageOptions, Reply } from "./reply.js";
import { isActive, isAsked, type Turn } from "./state.js";
import type { ChatError, ConversationState } from "./thread.js";

export interface StoreOptions extends ApiOptions, ExchangeOptions {
  /** The channel is `private-ai-chat.{userId}`. */
  readonly userId: number | string;
  /** A stock Echo, a pusher-js, or a function that gives one; default `window.Echo`. */
  readonly echo?: EchoLike | PusherLike | (() => EchoLike | PusherLike) | undefined;
  /**
   * True, the default, to let the server join tokens while they arrive more slowly than they are written. Others who
   * listen to the channel on the same Echo have to understand `tokenCount`, too.
   */
  readonly mergeTokens?: boolean | undefined;
}

/** What a page shows. Never changed: each change makes a new one, in which what did not change is the same object. */
export interface ChatSnapshot {
  readonly turns: readonly Turn[];
  readonly connection: Connection;
  /** The replies that are being made. */
  readonly activeStreams: readonly Reply[];
  /** Whether a message would be taken. */
  readonly canSend: boolean;
  readonly error: ChatError | null;
  /** With the `conversations` option, the one that is open; else null. */
  readonly conversation: ConversationState | null;
}

/** What is behind the snapshot. */
export interface Behind {
  open(): void;
  close(): void;
  setLive(isLive: boolean, socketId?: string): void;
  send(text: string, options?: MessageOptions, key?: string): void;
  cancel(key: string): void;
  readonly onEvent: (name: string, data: unknown) => void;
}

/** The functions need no `this`. */
export interface Store {
  readonly getSnapshot: () => ChatSnapshot;
  /**
   * Call `listener` after each change; the returned function ends that. The chat listens on the channel while it has
   * subscribers.
   */
  readonly subscribe: (listener: () => void) => () => void;
  /** Say it behind `turns`, by default all; if not all, instead of turn `key`. False if the message was not taken. */
  readonly say: (
    text: string,
    options?: MessageOptions,
    key?: string,
    turns?: readonly Turn[],
  ) => boolean;
  /** Stop a reply, by its key; without one, all that are being made or wait to be sent. */
  readonly stop: (key?: string) => void;
  /** Stop listening now, whoever is subscribed. The next {@link subscribe} begins again. */
  readonly close: () => void;
}

const DENIED: ChatError = { kind: "denied", text: TEXTS.denied };

/**
 * Make a store. Nothing happens before somebody subscribes.
 *
 * @param make gives what is behind it; it says what changes by calling its argument
 */
export function createStore(
  { userId, echo, mergeTokens = true }: StoreOptions,
  canSend: (turns: readonly Turn[], connection: Connection) => boolean,
  make: (update: (change: Partial<ChatSnapshot>) => void) => Behind,
  tooLong?: (text: string) => string,
): Store {
  let isOpen = false;
  let stopFollowing = (): void => undefined;
  const shown = (now: Omit<ChatSnapshot, "activeStreams" | "canSend">): ChatSnapshot => ({
    ...now,
    activeStreams: now.turns.filter(isAsked),
    canSend: canSend(now.turns, now.connection),
  });
  let snapshot = shown({ turns: [], connection: "connecting", error: null, conversation: null });
  const update = (change: Partial<ChatSnapshot>): void => {
    snapshot = shown({ ...snapshot, ...change });
    listeners.notify();
  };
  const behind = make(update);

  const open = (): void => {
    if (isOpen) return;
    isOpen = true;
    const source = echo ?? (globalThis as unknown as { Echo: EchoLike }).Echo;
    behind.open();
    stopFollowing = follow(typeof source === "function" ? source() : source, String(userId), {
      isMerging: mergeTokens,
      onEvent: behind.onEvent,
      onConnection: (connection, socketId) => {
        const { error } = snapshot;
        const others = error === DENIED ? null : error;
        update({ connection, error: connection === "refused" ? DENIED : others });
        behind.setLive(connection === "live", socketId);
      },
    });
  };
  const close = (): void => {
    stopFollowing();
    isOpen = false;
    behind.close();
  };
  const listeners = createListeners(open, close);

  return {
    getSnapshot: () => snapshot,
    subscribe: listeners.subscribe,
    say(text, more, key, turns = snapshot.turns) {
      const message = text.trim();
      const { connection, error } = snapshot;
      if (message === "" || !isOpen) return false;
      const problem = tooLong?.(message);
      if (problem) {
        update({ error: { kind: "too_long", text: problem } });
        return false;
      }
      if (!canSend(turns, connection)) return false;
      if (error) update({ error: null });
      behind.send(message, more, key);
      return true;
    },
    stop(key) {
      for (const turn of snapshot.turns)
        if (isActive(turn) && (key ?? turn.key) === turn.key) behind.cancel(turn.key);
    },
    close,
  };
}
