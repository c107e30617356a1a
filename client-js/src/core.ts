/**
 * `legato-client/core`: `createChat` with what the smallest page needs. Replies are as whole as those of
 * `legato-client`, which has the same functions and more.
 */

import { createApi } from "./api.js";
import { exchange } from "./exchange.js";
import { parseFrame } from "./frames.js";
import { randomId } from "./ids.js";
import { TEXT_ONLY, type UserTurn } from "./reply.js";
import { askNow, cancel, EMPTY, isActive, receive, type Step } from "./state.js";
import {
  createStore,
  type Behind,
  type ChatSnapshot,
  type Store,
  type StoreOptions,
} from "./store.js";
import type { Chat } from "./chat.js";

export type CoreOptions = StoreOptions;
export type CoreSnapshot = Omit<ChatSnapshot, "conversation">;

/** The functions need no `this`. */
export interface CoreChat extends Pick<Store, "subscribe" | "stop" | "close">, Pick<Chat, "send"> {
  readonly getSnapshot: () => CoreSnapshot;
}

/** Make a chat. Nothing happens before somebody subscribes. */
export function createChat(options: CoreOptions): CoreChat {
  const { say, ...store } = createStore(
    options,
    (turns, connection) => connection === "live" && !turns.some(isActive),
    (update) => converse(options, update),
  );
  return { ...store, send: (text, more) => say(text, more) };
}

/** A conversation that lives as long as the page. */
function converse(options: CoreOptions, update: (change: Partial<ChatSnapshot>) => void): Behind {
  const parts = TEXT_ONLY;
  const sessionId = randomId();
  let state = EMPTY;
  let isListening = false;

  const commit = ({ state: next, effects }: Step): void => {
    if (!isListening) return;
    const { turns } = state;
    state = next;
    server.watch();
    if (next.turns !== turns) update({ turns: next.turns });
    effects.forEach(server.run);
  };
  const server = exchange(
    {
      ...{ api: createApi(options), parts, commit },
      isListening: () => isListening,
      state: () => state,
      body(reply, { history }) {
        const { text, options: more } = state.turns[state.turns.indexOf(reply) - 1] as UserTurn;
        return { ...more, message: text, history, session_id: sessionId };
      },
    },
    options,
  );

  const { setLive, submit, watch } = server;
  const listen = (is: boolean): void => {
    isListening = is;
    setLive(false); // until the connection says so
    watch();
  };

  return {
    open() {
      listen(true);
    },
    close() {
      listen(false);
    },
    setLive,
    send(text, more) {
      const key = randomId();
      const [userKey, requestId, at] = [randomId(), randomId(), Date.now()];
      commit(askNow(state, { key, userKey, requestId, text, options: more, at }));
      void submit(key);
    },
    cancel(key) {
      commit(cancel(state, key, Date.now()));
    },
    onEvent(name, data) {
      const frame = parseFrame(name, data);
      if (frame) commit(receive(state, frame, Date.now(), parts));
    },
  };
}
