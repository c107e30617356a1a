/** A chat as an observable store: what a page shows of a conversation, whatever it is written with. */

import { createApi } from "./api.js";
import { converse, type Conversation, type ConversationOptions } from "./conversation.js";
import { tooLong } from "./limits.js";
import type { MessageOptions } from "./reply.js";
import { isActive, isUnsent } from "./state.js";
import { createStore, type Store, type StoreOptions } from "./store.js";

export type { ChatSnapshot } from "./store.js";

export interface ChatOptions
  extends StoreOptions, Omit<ConversationOptions, "api" | "name" | "onChange" | "onConversation"> {
  /** True, the default, to take messages while there is no connection, and send them when there is one. */
  readonly queue?: boolean | undefined;
}

/** The functions need no `this`. */
export interface Chat extends Omit<Store, "say"> {
  /**
   * Ask for a reply. False if the message was not taken: it is blank or too long, or `canSend` is
   * false. `options` are further fields of the message, such as `attachments`.
   */
  readonly send: (text: string, options?: MessageOptions) => boolean;
  /** Start a failed reply over. */
  readonly retry: (key: string) => void;
  /** Make a reply that has ended anew: in its place, or, if the server keeps the conversation, beside it. */
  readonly regenerate: (key: string) => void;
  /**
   * Say something else instead of the user's turn `key`: it and everything behind it are forgotten, or, if the server
   * keeps the conversation, another branch.
   */
  readonly edit: (key: string, text: string) => boolean;
  /** Approve a tool call, or refuse it. Needs `parts`. */
  readonly approve: (messageId: string, call: string, note?: string) => void;
  readonly deny: (messageId: string, call: string, note?: string) => void;
  /** Show a conversation that the server keeps, or, with null, begin one. What runs in the one that is left goes on. */
  readonly open: (id: string | null) => void;
  /** Show the branch that lies `step` siblings beside the turn `key`. */
  readonly switchBranch: (key: string, step: number) => void;
  /** Read older turns. */
  readonly loadEarlier: () => Promise<void>;
  /** Begin anew: what still runs is stopped and all is forgotten, unless the server keeps the conversation. */
  readonly clear: () => void;
}

/** Why a text cannot be sent, for people; empty if it can. */
export { tooLong };

/** More unsent messages are not taken. */
const MAX_UNSENT = 20;

/** Make a chat. Nothing happens before somebody subscribes. */
export function createChat(options: ChatOptions): Chat {
  const { userId, parts, queue = true, maxStreams = 1, maxMessage } = options;
  let conversation!: Conversation;
  const { say, ...store } = createStore(
    options,
    (turns, connection) => {
      if (connection === "live") return turns.filter(isActive).length < maxStreams;
      return queue && connection !== "refused" && turns.filter(isUnsent).length < MAX_UNSENT;
    },
    (update) =>
      (conversation = converse({
        ...options,
        api: createApi(options, parts),
        name: `legato-chat:${String(userId)}`,
        onChange: (turns) => {
          update({ turns });
        },
        onConversation: (conversation) => {
          update({ conversation });
        },
      })),
    (text) => tooLong(text, maxMessage),
  );

  const { getSnapshot } = store;

  return {
    ...store,
    send: (text, more) => say(text, more),
    retry(key) {
      if (getSnapshot().canSend) conversation.retry(key);
    },
    regenerate(key) {
      if (getSnapshot().canSend) conversation.retry(key, true);
    },
    edit(key, text) {
      const { turns } = getSnapshot();
      const index = turns.findIndex((turn) => turn.key === key);
      const turn = turns[index];
      return turn?.role === "user" && say(text, turn.options, key, turns.slice(0, index));
    },
    approve(messageId, call, note) {
      conversation.decide(messageId, call, true, note);
    },
    deny(messageId, call, note) {
      conversation.decide(messageId, call, false, note);
    },
    open(id) {
      conversation.thread()?.open(id);
    },
    switchBranch(key, step) {
      conversation.thread()?.switchBranch(key, step);
    },
    loadEarlier: async () => conversation.thread()?.loadEarlier(),
    clear() {
      const thread = conversation.thread();
      if (thread) thread.open(null);
      else conversation.clear();
    },
  };
}
