/**
 * A conversation that is alive: the reducer, and around it HTTP, storage and the watchdog.
 *
 * Knows no framework and no socket: give it frames with {@link Conversation.receive}, show what `onChange` gives.
 */

import { ApiError, type Api, type SendBody } from "./api.js";
import { FAILED_TEXT, type Frame } from "./frames.js";
import { tooLong } from "./limits.js";
import {
  EMPTY,
  findReply,
  isActive,
  isStopOwed,
  missingFrom,
  reduce,
  type Action,
  type ChatState,
  type Effect,
  type Reply,
  type Turn,
} from "./reducer.js";
import { load, save, type TextStorage } from "./storage.js";
import { Watchdog } from "./watchdog.js";

export interface Gap {
  readonly messageId: string;
  /** The first index that is missing. */
  readonly from: number;
}

export interface ConversationOptions {
  readonly api: Api;
  readonly storage: TextStorage | null;
  readonly storageKey: string;
  readonly onChange: (turns: readonly Turn[]) => void;
  /** Told about every gap; the refetch happens by itself. */
  readonly onGap?: ((gap: Gap) => void) | undefined;
  /** Without progress for this long the status is read over HTTP; default 15 s. */
  readonly silenceMs?: number | undefined;
  /** After this many of those in a row the reply counts as failed, unless it is queued; default 9. */
  readonly maxSilences?: number | undefined;
  /** The server's `chat.max_message_characters`; default 100 000. */
  readonly maxMessage?: number | undefined;
}

const STOP_TRIES = 3;
const STOP_PAUSE_MS = 500;

export class Conversation {
  private state: ChatState = EMPTY;
  private sessionId = randomId();
  private readonly sending = new Set<string>();
  private readonly fetching = new Set<string>();
  private readonly watchdog: Watchdog;
  private closed = false;

  constructor(private readonly options: ConversationOptions) {
    this.watchdog = new Watchdog(options.silenceMs ?? 15_000, (key) => {
      void this.onSilence(key);
    });
    const saved = load(options.storage, options.storageKey);
    if (!saved) return;
    this.state = { ...EMPTY, turns: saved.turns };
    this.sessionId = saved.sessionId;
  }

  get turns(): readonly Turn[] {
    return this.state.turns;
  }

  /** The reply that is still being made, if any. */
  get active(): Reply | undefined {
    return this.state.turns.find(isActive);
  }

  /**
   * Add a turn and ask for its reply.
   *
   * @throws {RangeError} the text is too long, and nothing has happened
   */
  async send(text: string): Promise<void> {
    const problem = tooLong(text, this.options.maxMessage);
    if (problem !== "") throw new RangeError(problem);
    const key = randomId();
    const userKey = randomId();
    this.dispatch({ type: "send", key, userKey, requestId: randomId(), text, at: Date.now() });
    await this.post(key);
  }

  /** Start a failed reply over. */
  async retry(key: string): Promise<void> {
    this.dispatch({ type: "retry", key, requestId: randomId(), at: Date.now() });
    await this.post(key);
  }

  /** Stop a reply. If its id is not known yet, the server is told as soon as it is, if need be after a refresh. */
  cancel(key: string): void {
    this.dispatch({ type: "cancel", key, at: Date.now() });
  }

  /** Forget everything and begin anew; what still runs is stopped. */
  clear(): void {
    if (this.active) this.cancel(this.active.key);
    this.state = EMPTY;
    this.sessionId = randomId();
    this.changed();
  }

  receive(frame: Frame): void {
    this.dispatch({ type: "frame", frame, at: Date.now() });
  }

  /** Catch up on what is unfinished: after a refresh, or when the connection is back. */
  async resume(): Promise<void> {
    await Promise.all(
      this.state.turns
        .filter((turn) => isActive(turn) || isStopOwed(turn))
        .map((reply) => (reply.messageId ? this.refetch(reply.key) : this.post(reply.key))),
    );
  }

  save(): void {
    const { storage, storageKey } = this.options;
    save(storage, storageKey, { sessionId: this.sessionId, turns: this.state.turns });
  }

  /** Stop timers and callbacks. The server goes on. */
  close(): void {
    this.save();
    this.closed = true;
    this.watchdog.keepOnly(new Set());
  }

  private dispatch(action: Action): void {
    if (this.closed) return;
    const before = this.state;
    const { state, effects } = reduce(before, action);
    this.state = state;
    if (state.turns !== before.turns) this.changed(action);
    effects.forEach((effect) => {
      this.run(effect);
    });
  }

  private changed(action?: Action): void {
    const active = this.state.turns.filter(isActive);
    this.watchdog.keepOnly(new Set(active.map((reply) => reply.key)));
    for (const reply of active) this.watchdog.watch(reply.key, progress(reply));
    // Not for each token: a refresh reads those from the server's log.
    if (action?.type !== "frame" || action.frame.type !== "token.received") this.save();
    this.options.onChange(this.state.turns);
  }

  private run(effect: Effect): void {
    if (effect.type === "cancel") {
      void this.postCancel(effect.messageId);
      return;
    }
    const reply = this.state.turns.filter(isActive).find((r) => r.messageId === effect.messageId);
    this.options.onGap?.({ messageId: effect.messageId, from: effect.from });
    if (reply) void this.refetch(reply.key);
  }

  /** Make the request of a reply that has no id yet: for its text, or, if it was stopped, to learn what to cancel. */
  private async post(key: string): Promise<void> {
    const index = this.state.turns.findIndex((turn) => turn.key === key);
    const reply = this.state.turns[index];
    const user = this.state.turns[index - 1];
    if (!user || !reply || !(isActive(reply) || isStopOwed(reply))) return;
    if (!reply.request || this.sending.has(key)) return;
    const { id, history } = reply.request;
    this.sending.add(key);
    const body = { message: user.text, history, session_id: this.sessionId };
    await this.submit(key, id, body).finally(() => this.sending.delete(key));
  }

  /** Send until there is an answer if nobody waits for the reply; once if somebody does, who may press Retry. */
  private async submit(key: string, requestId: string, body: SendBody): Promise<void> {
    for (let left = STOP_TRIES - 1; ; left -= 1) {
      try {
        const messageId = await this.options.api.send(body, requestId);
        this.dispatch({ type: "send.accepted", key, messageId, at: Date.now() });
        return;
      } catch (error) {
        const answered = error instanceof ApiError && !error.lost;
        if (answered || left === 0 || !this.isAbandoned(key)) {
          this.dispatch({ type: "send.failed", key, error: text(error), answered, at: Date.now() });
          return;
        }
        await pause(STOP_PAUSE_MS);
      }
    }
  }

  /** True for a reply that was stopped or forgotten: no Retry will repeat its request, so we do. */
  private isAbandoned(key: string): boolean {
    const reply = findReply(this.state, key);
    return !this.closed && (!reply || isStopOwed(reply));
  }

  private async postCancel(messageId: string): Promise<void> {
    for (let left = STOP_TRIES; left > 0; left -= 1) {
      try {
        await this.options.api.cancel(messageId);
        return;
      } catch (error) {
        if (error instanceof ApiError && error.status !== null && error.status < 500) return;
        await pause(STOP_PAUSE_MS);
      }
    }
  }

  /** Read what is missing from the server's log, until nothing is or nothing more comes. */
  private async refetch(key: string): Promise<void> {
    const reply = findReply(this.state, key);
    if (!reply?.messageId || !isActive(reply) || this.fetching.has(key)) return;
    const { messageId, nextIndex } = reply;
    this.fetching.add(key);
    try {
      const log = await this.options.api.fetchReply(messageId, nextIndex - 1);
      this.dispatch({ type: "refetched", messageId, log, at: Date.now() });
      // Before its turn a reply is silent with good reason; the server ends the wait, not we.
      if (log.status === "queued") this.watchdog.forgive(key);
    } catch (error) {
      if (error instanceof ApiError && error.gone) this.giveUp(key, FAILED_TEXT);
      return; // anything else passes: the watchdog asks again
    } finally {
      this.fetching.delete(key);
    }
    const after = findReply(this.state, key);
    const missing = after && missingFrom(after);
    if (missing != null && missing > nextIndex) await this.refetch(key);
  }

  private async onSilence(key: string): Promise<void> {
    const reply = findReply(this.state, key);
    if (!reply) return;
    await (reply.messageId ? this.refetch(key) : this.post(key));
    // Still the same stretch of silence after asking: nobody will end this reply, so we do.
    if (this.watchdog.silences(key) >= (this.options.maxSilences ?? 9)) {
      this.giveUp(key, FAILED_TEXT);
    }
  }

  private giveUp(key: string, error: string): void {
    this.dispatch({ type: "give-up", key, error, at: Date.now() });
  }
}

const progress = (reply: Reply): string =>
  [reply.messageId, reply.model, reply.nextIndex, reply.totalTokens].join(":");

const text = (error: unknown): string => (error instanceof ApiError ? error.message : FAILED_TEXT);

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** 128 random bits. Not `crypto.randomUUID`, which a page over plain HTTP on a LAN does not have. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
