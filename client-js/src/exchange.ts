/** What a conversation asks of the server: to make a reply, to stop it, and for what is missing of it. */

import type { Api, SendBody } from "./api.js";
import { ApiError, FAILED_TEXT } from "./errors.js";
import type { ReplyLog } from "./frames.js";
import { isOpen, missingFrom, type PartRules, type PendingRequest, type Reply } from "./reply.js";
import {
  accept,
  findReply,
  giveUp,
  isActive,
  isAsked,
  isStopOwed,
  refetched,
  refused,
  type ChatState,
  type Effect,
  type Step,
} from "./state.js";
import { watch, type Watched } from "./watchdog.js";

export interface Gap {
  readonly messageId: string;
  /** The first index that is missing. */
  readonly from: number;
}

export interface ExchangeOptions {
  /** Told about every gap; the refetch happens by itself. */
  readonly onGap?: ((gap: Gap) => void) | undefined;
  /** How often a message is sent whose answer is lost; default 3. */
  readonly tries?: number | undefined;
  /** Without progress for this long the status is read over HTTP; default 15 s. */
  readonly silenceMs?: number | undefined;
  /** After this many of those in a row the reply counts as failed, unless it is queued; default 9. */
  readonly maxSilences?: number | undefined;
}

/** The conversation, as far as it matters here. */
export interface ExchangeHost {
  readonly api: Api;
  readonly parts: PartRules;
  /** False when nobody listens any more. */
  isListening(): boolean;
  readonly state: () => ChatState;
  readonly commit: (step: Step) => void;
  /** What is sent to ask for a reply; each time the same to the byte. */
  body(reply: Reply, request: PendingRequest): SendBody | undefined;
  headers?(): object | undefined;
  /** The request for a reply was answered with its id. */
  accepted?(key: string): void;
}

export interface Exchange {
  /** Say whether there is a way to the server. If so, what is unfinished goes on; if not, no silence counts. */
  readonly setLive: (isLive: boolean) => void;
  /** Do what a change of the state asks for. */
  readonly run: (effect: Effect) => void;
  /** Make the request of a reply that has no id yet: for its text, or, if it was stopped, to learn what to cancel. */
  readonly submit: (key: string) => Promise<void>;
  /** Read what is missing from the server's log, until nothing is or nothing more comes. */
  readonly refetch: (key: string) => Promise<void>;
  /** Watch for silence in the replies that are being made, while somebody listens. */
  readonly watch: () => void;
}

const TRIES = 3;
const PAUSE_MS = 500;

export function exchange(host: ExchangeHost, options: ExchangeOptions): Exchange {
  const { api, parts, state, commit } = host;
  const sending = new Set<string>();
  const fetching = new Set<string>();
  const watched = new Map<string, Watched>();
  let isLive = false;

  const find = (key: string): Reply | undefined => findReply(state(), key);

  const submit = async (key: string): Promise<void> => {
    const reply = find(key);
    if (!reply?.request || !(isActive(reply) || isStopOwed(reply)) || sending.has(key)) return;
    const body = host.body(reply, reply.request);
    if (!body) return;
    sending.add(key);
    await post(key, reply.request.id, body).finally(() => sending.delete(key));
  };

  /** Send until there is an answer, or hope is lost and the user may press Retry; without a way, until there is one. */
  const post = async (key: string, requestId: string, body: SendBody): Promise<void> => {
    for (let left = (options.tries ?? TRIES) - 1; ; left -= 1) {
      try {
        const messageId = await api.send(body, requestId, host.headers?.());
        commit(accept(state(), key, messageId, Date.now(), parts));
        host.accepted?.(key);
        return;
      } catch (error) {
        const { kind, lost, message } = known(error);
        const reply = find(key);
        // Of one that was stopped or forgotten no Retry will repeat the request, so we do.
        const isAbandoned = host.isListening() && (!reply || isStopOwed(reply));
        if (lost && !isLive && !isAbandoned) return; // `setLive` repeats it
        if (!lost || (left <= 0 && !isAbandoned) || left <= -TRIES) {
          commit(refused(state(), key, { kind, error: message }, !lost, Date.now()));
          return;
        }
        await pause();
      }
    }
  };

  const postCancel = async (messageId: string): Promise<void> => {
    for (let left = TRIES; left > 0; left -= 1) {
      try {
        await api.cancel(messageId);
        return;
      } catch (error) {
        if ((known(error).status ?? 500) < 500) return;
        await pause();
      }
    }
  };

  const wantedFrom = (reply: Reply): number | null => parts.wantedFrom(reply) ?? missingFrom(reply);

  const refetch = async (key: string, wanted?: number, isAgain = false): Promise<void> => {
    const reply = find(key);
    if (!reply?.messageId || fetching.has(key)) return;
    const from = wanted ?? wantedFrom(reply) ?? (isOpen(reply) ? reply.nextIndex : null);
    if (from === null) return;
    const { messageId } = reply;
    let log: ReplyLog;
    fetching.add(key);
    try {
      log = await api.fetchReply(messageId, from - 1);
      commit(refetched(state(), messageId, log, Date.now(), parts));
      const now = find(key);
      // Before its turn, before an approval, and while a tool works; the server ends each of these, not we.
      if (["queued", "waiting"].includes(log.status) || (now && parts.isAtWork(now))) forgive(key);
    } catch (error) {
      if (known(error).gone) commit(giveUp(state(), key, Date.now()));
      return; // anything else passes: the watchdog asks again
    } finally {
      fetching.delete(key);
    }
    const after = find(key);
    if (!after) return;
    const next = wantedFrom(after);
    if (next === null || parts.isCut(log)) return;
    if (next !== from || (!isAgain && parts.isOld(after, log)))
      await refetch(key, next, next === from);
  };

  const forgive = (key: string): void => {
    const entry = watched.get(key);
    if (entry) entry.count = 0;
  };

  const resume = (reply: Reply): Promise<void> =>
    reply.messageId ? refetch(reply.key) : submit(reply.key);

  const onSilence = async (key: string): Promise<void> => {
    const reply = find(key);
    if (!reply) return;
    if (!isLive) forgive(key);
    await resume(reply);
    // Still the same stretch of silence after asking: nobody will end this reply, so we do.
    if ((watched.get(key)?.count ?? 0) >= (options.maxSilences ?? 9))
      commit(giveUp(state(), key, Date.now()));
  };

  return {
    setLive(live) {
      isLive = live;
      if (!live) return;
      for (const turn of state().turns) if (isAsked(turn) || isStopOwed(turn)) void resume(turn);
    },
    run(effect) {
      const { type, messageId } = effect;
      if (type === "cancel") {
        void postCancel(messageId);
        return;
      }
      const reply = findReply(state(), messageId, "messageId");
      if (type === "gap") options.onGap?.({ messageId, from: effect.from });
      if (reply) void refetch(reply.key, effect.from);
    },
    submit,
    refetch: (key) => refetch(key),
    watch() {
      const asked = host.isListening() ? state().turns.filter(isAsked) : [];
      const progress = new Map(asked.map((reply) => [reply.key, progressOf(reply)]));
      watch(watched, progress, options.silenceMs ?? 15_000, (key) => void onSilence(key));
    },
  };
}

const known = (error: unknown): ApiError =>
  error instanceof ApiError ? error : new ApiError(FAILED_TEXT, 400);

const progressOf = (reply: Reply): string =>
  [
    ...[reply.messageId, reply.model, reply.nextIndex, reply.totalTokens],
    ...[reply.log.offset, reply.log.events.at(-1)?.offset],
  ].join(":");

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
