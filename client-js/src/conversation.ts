/**
 * A conversation that is alive: the state, and around it HTTP, storage and the watchdog.
 *
 * Knows no framework and no socket: give it frames with `receive`, show what `onChange` gives.
 */

import type { Api } from "./api.js";
import { exchange, type ExchangeOptions } from "./exchange.js";
import { parseFrame, type Frame } from "./frames.js";
import { randomId } from "./ids.js";
import { tooLong } from "./limits.js";
import {
  adopt,
  answered,
  ask,
  cancel,
  cut,
  EMPTY,
  findReply,
  isAsked,
  isUnsent,
  post,
  questionOf,
  receive as take,
  retry,
  type Step,
  type Turn,
} from "./state.js";
import { TEXT_ONLY, type Host, type MessageOptions, type PartRules, type Reply } from "./reply.js";
import type { Behind } from "./store.js";
import type { ConversationState, Saved, ServerConversations, Thread } from "./thread.js";

/** Where a conversation is kept over a refresh: `keepIn` of `legato-client/storage` makes one. */
export interface Keeper {
  load(name: string): Saved | null;
  save(name: string, saved: Saved): void;
}

export interface ConversationOptions extends ExchangeOptions {
  readonly api: Api;
  readonly keep?: Keeper | undefined;
  /** Under which name it is kept. */
  readonly name: string;
  readonly parts?: PartRules | undefined;
  /** `serverConversations()` of `legato-client/conversations`, if the server keeps the conversations. */
  readonly conversations?: ServerConversations | undefined;
  readonly onChange: (turns: readonly Turn[]) => void;
  readonly onConversation?: ((conversation: ConversationState) => void) | undefined;
  /** How many replies may be in the making; default 1. */
  readonly maxStreams?: number | undefined;
  /** The server's `chat.max_message_characters`; default 100 000. */
  readonly maxMessage?: number | undefined;
}

export interface Conversation extends Host, Behind {
  thread(): Thread | undefined;
  /** Begin, or begin again after {@link close}; the first time with what was kept. */
  open(): void;
  /** Stop timers and callbacks. The server goes on. */
  close(): void;
  /** Say whether the server can be reached. If so, what is unfinished goes on: that is read, and unsent messages are sent. */
  setLive(isLive: boolean, socketId?: string): void;
  /**
   * Add a turn and ask for its reply, at once or as soon as possible.
   *
   * @param key the user's turn that it replaces, with all behind it; on the server, that it stands beside
   * @throws {RangeError} the text is too long, and nothing has happened
   */
  send(text: string, options?: MessageOptions, key?: string): void;
  /** Start a failed reply over; with `again`, any that has ended. */
  retry(key: string, again?: boolean): void;
  /** Stop a reply. If its id is not known yet, the server is told as soon as it is, if need be after a refresh. */
  cancel(key: string): void;
  /** Decide about a tool call that waits for approval. What becomes of it stands in the reply's `answers`. */
  decide(messageId: string, call: string, approve: boolean, note?: string): void;
  /** Forget everything and begin anew; what still runs is stopped. */
  clear(): void;
  receive(frame: Frame): void;
  save(): void;
}

/** Outside of a browser there are no such events. */
const page: Partial<Pick<Window, "addEventListener" | "removeEventListener">> = globalThis;

/** Events of which there are many. */
const PIECES: readonly string[] = ["token.received", "reasoning.received", "tool.input_received"];

export function converse(options: ConversationOptions): Conversation {
  const { api, keep, name, parts = TEXT_ONLY } = options;
  let state = EMPTY;
  let sessionId = randomId();
  let kept: Saved | null | undefined;
  let isListening = false;
  let isLive = false;
  let thread: Thread | undefined;

  const find = (messageId: string): Reply | undefined => findReply(state, messageId, "messageId");

  const save = (): void => {
    const saved = thread ? thread.saved() : { sessionId, turns: state.turns };
    if (saved) keep?.save(name, saved);
  };

  const showTurns = (isPiece = false): void => {
    server.watch();
    postUnsent(); // first, so that a message that need not wait is never shown as unsent
    // Not for each piece: a refresh reads those from the server's log.
    if (!isPiece) save();
    options.onChange(thread ? thread.path() : state.turns);
  };

  const commit = ({ state: next, effects }: Step, isPiece?: boolean): void => {
    if (!isListening) return;
    const { turns } = state;
    state = next;
    if (next.turns !== turns) showTurns(isPiece);
    effects.forEach(server.run);
  };

  const restore = (saved: Saved | null | undefined, turns: readonly Turn[] = []): void => {
    if (saved) {
      state = { ...EMPTY, turns: [...saved.turns, ...turns] };
      sessionId = saved.sessionId;
    }
    showTurns();
  };

  const server = exchange(
    {
      ...{ api, parts, commit },
      isListening: () => isListening,
      state: () => state,
      body(reply, { history, to = { history, session_id: sessionId } }) {
        const [, user] = questionOf(state, reply);
        return user && { ...user.options, message: user.text, ...to };
      },
      headers: () => thread?.headers(),
      accepted: (key) => thread?.accepted(key),
    },
    options,
  );
  const { refetch, submit } = server;

  thread = options.conversations?.({
    api,
    turns: () => state.turns,
    update(turns) {
      state = { ...state, turns };
      for (const { messageId } of state.strays) {
        const reply = find(messageId);
        if (reply) commit(adopt(state, reply, { ...reply }, Date.now(), parts));
      }
      showTurns();
    },
    show: (conversation) => options.onConversation?.(conversation),
    refetch,
    fallBack() {
      thread = undefined;
      state = { ...state, isShared: false };
      restore(kept ?? { sessionId, turns: [] }, state.turns);
    },
  });

  /** Whether this reply may be asked for now. */
  const hasRoom = (): boolean =>
    isLive && (thread?.isReady() ?? state.turns.filter(isAsked).length < (options.maxStreams ?? 1));

  /** Send the oldest unsent message that may be: what that changes then comes to the next one. */
  const postUnsent = (): void => {
    if (!hasRoom()) return;
    for (const { key } of state.turns.filter(isUnsent)) {
      const reply = findReply(state, key);
      const [, user] = reply ? questionOf(state, reply) : [];
      const to = reply && user && thread?.to(reply, user);
      if (thread && !to) continue;
      commit(post(state, key, Date.now(), to));
      void submit(key);
      return;
    }
  };

  const receive = (frame: Frame): void => {
    commit(take(state, frame, Date.now(), parts), PIECES.includes(frame.type));
  };

  const host: Host = {
    api,
    find,
    answered(messageId, call, answer) {
      commit(answered(state, messageId, call, answer, parts));
    },
    refetch,
  };

  return {
    ...host,
    thread: () => thread,
    open() {
      isListening = true;
      page.addEventListener?.("pagehide", save);
      if (kept !== undefined) {
        showTurns();
        return;
      }
      kept = keep?.load(name) ?? null;
      if (!thread) {
        restore(kept);
        return;
      }
      state = { ...EMPTY, isShared: true };
      thread.restore(kept);
    },
    close() {
      page.removeEventListener?.("pagehide", save);
      if (!isListening) return;
      save();
      thread?.close();
      isListening = isLive = false;
      server.setLive(false);
      server.watch();
    },
    setLive(live, socketId) {
      thread?.setLive(live, socketId);
      isLive = live;
      server.setLive(live);
      postUnsent();
    },
    send(text, more, instead) {
      const problem = tooLong(text, options.maxMessage);
      if (problem !== "") throw new RangeError(problem);
      if (instead !== undefined && !thread) commit(cut(state, instead));
      const [key, userKey, requestId] = [randomId(), randomId(), randomId()];
      const place = thread?.place(userKey, instead);
      const at = Date.now();
      commit(ask(state, { key, userKey, requestId, text, options: more, later: true, place, at }));
    },
    retry(key, again = false) {
      if (thread?.again(key, again)) return;
      commit(retry(state, { key, again, requestId: randomId(), later: true, at: Date.now() }));
      void submit(key); // if it was lost, it is the same request
    },
    cancel(key) {
      commit(cancel(state, key, Date.now()));
    },
    decide(messageId, call, approve, note = "") {
      void parts.decide?.(host, messageId, call, approve, note);
    },
    clear() {
      for (const { key } of state.turns) commit(cancel(state, key, Date.now()));
      state = EMPTY;
      sessionId = randomId();
      showTurns();
    },
    receive,
    onEvent(name, data) {
      const frame = parseFrame(name, data, parts);
      if (frame) receive(frame);
      else thread?.receive(name, data);
    },
    save,
  };
}
