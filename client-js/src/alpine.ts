/** `legato-client/alpine`: the chat as an Alpine component, with parts, over a stock Echo instance. */

import { announce } from "./announce.js";
import { answerTo, isUndecided } from "./approvals.js";
import { createChat, tooLong, type Chat, type ChatOptions } from "./chat.js";
import type { Connection } from "./connection.js";
import { parts } from "./part-rules.js";
import type { ReasoningPart, ToolPart } from "./parts.js";
import { isActive, type Answer, type MessageOptions, type Reply, type Turn } from "./reducer.js";
import { keepIn, type TextStorage } from "./storage.js";
import type { ChatError, ConversationState } from "./thread.js";
import * as view from "./view.js";

export interface AlpineOptions extends Omit<ChatOptions, "parts" | "keep"> {
  /** Where the conversation is kept; default `sessionStorage`; null to keep nothing. */
  readonly storage?: TextStorage | null;
  /** Makes a `show` that runs less often, for pages on which much depends on each token; the last call must count. */
  readonly pace?: ((show: () => void) => () => void) | undefined;
}

export interface ChatComponent {
  turns: readonly Turn[];
  draft: string;
  connection: Connection;
  /** One line for a screen reader's live region; changes with a reply's status, not with each token. */
  announcement: string;
  /** Milliseconds; moves only while a reply is being made. */
  now: number;
  readonly subscribed: boolean;
  /** The first reply that is being made, or waits to be sent. */
  readonly active: Reply | undefined;
  activeStreams: readonly Reply[];
  canSend: boolean;
  /** Why the last message was not taken. */
  error: ChatError | null;
  /** The one that is open, with the `conversations` option. */
  conversation: ConversationState | null;
  /** Why the draft cannot be sent, for people: it is too long. Empty if it is not. */
  readonly tooLong: string;
  init(): void;
  destroy(): void;
  /**
   * Send `text`, or what stands in `draft`. Does nothing unless {@link canSend}; what is too long stays, and the
   * {@link announcement} says so.
   */
  send(text?: string, options?: MessageOptions): void;
  stop(key?: string): void;
  retry(key: string): void;
  regenerate(key: string): void;
  edit(key: string, text: string): boolean;
  clear(): void;
  /** Show a conversation that the server keeps, or, with null, begin one. */
  open(id: string | null): void;
  switchBranch(key: string, step: number): void;
  loadEarlier(): Promise<void>;
  /** How long a reply took, or takes so far, such as `3.2 s` or `2 min 5 s`. */
  elapsed(reply: Reply): string;
  /** Approve a tool call that waits for it, or refuse it. What becomes of that is the call's {@link answer}. */
  approve(messageId: string, call: string, note?: string): void;
  deny(messageId: string, call: string, note?: string): void;
  /** What was decided here about a call, if anything. */
  answer(reply: Reply, call: string): Answer | undefined;
  /** True for a call that the user may decide about. */
  isUndecided(reply: Reply, tool: ToolPart): boolean;
  /** The text and the other parts of a turn in order. */
  blocks(turn: Turn): readonly view.Block[];
  sources(turn: Turn): readonly view.Source[];
  /** True if there is nothing to be seen of the work on this turn. */
  isQuiet(turn: Turn): boolean;
  /** True while the model writes this piece of its reasoning. */
  isThinking(reply: Reply, part: ReasoningPart): boolean;
  reasoningTitle(reply: Reply, part: ReasoningPart): string;
  toolState(reply: Reply, tool: ToolPart): view.ToolView;
  toolWords(reply: Reply, tool: ToolPart): string;
  inputText(tool: ToolPart): string;
  outputText(tool: ToolPart): string;
  /** Until when a decision about a call is awaited, for people; empty if it is not. */
  deadline(reply: Reply, tool: ToolPart): string;
}

const TICK_MS = 100;

/** Make a component. Alpine calls `init` and `destroy`; a second `init` (a page's own `x-init`) does nothing. */
export function legatoAlpine(options: AlpineOptions): ChatComponent {
  // What Alpine must not make reactive lives here, not on the component.
  const { storage, pace, ...others } = options;
  let chat: Chat | null = null;
  let stopShowing: () => void = () => undefined;
  let clock: ReturnType<typeof setInterval> | undefined;

  return {
    turns: [],
    draft: "",
    connection: "connecting",
    announcement: "",
    now: Date.now(),
    activeStreams: [],
    canSend: false,
    error: null,
    conversation: null,

    get subscribed() {
      return this.connection === "live";
    },

    get active() {
      return this.turns.find(isActive);
    },

    get tooLong() {
      return tooLong(this.draft.trim(), options.maxMessage);
    },

    init() {
      if (chat) return;
      const tick = (): void => {
        this.now = Date.now();
      };
      const made = createChat({ queue: false, ...others, parts, keep: keepIn(storage) });
      let shown: readonly Turn[] | null = null;
      const show = (): void => {
        const { turns, ...rest } = made.getSnapshot();
        // What was there before the refresh is no news.
        const news = announce(shown ?? turns, turns, rest.connection === "live");
        if (news !== undefined) this.announcement = news;
        shown = turns;
        Object.assign(this, rest);
        if (this.turns !== turns) this.turns = turns;
        tick();
        const isMoving = this.activeStreams.some(({ status }) => status !== "waiting");
        if (isMoving) clock ??= setInterval(tick, TICK_MS);
        else {
          clearInterval(clock);
          clock = undefined;
        }
      };
      chat = made;
      stopShowing = made.subscribe(pace?.(show) ?? show);
      show();
    },

    destroy() {
      stopShowing();
      chat?.close();
      clearInterval(clock);
      clock = undefined;
      chat = null;
    },

    send(text, more) {
      const taken = chat?.send(text ?? this.draft, more);
      if (taken && text === undefined) this.draft = "";
      const problem = chat?.getSnapshot().error;
      if (!taken && problem) this.announcement = problem.text;
    },

    stop(key) {
      chat?.stop(key);
    },

    retry(key) {
      chat?.retry(key);
    },

    regenerate(key) {
      chat?.regenerate(key);
    },

    edit(key, text) {
      return chat?.edit(key, text) ?? false;
    },

    clear() {
      chat?.clear();
    },

    open(id) {
      chat?.open(id);
    },

    switchBranch(key, step) {
      chat?.switchBranch(key, step);
    },

    loadEarlier: async () => chat?.loadEarlier(),

    elapsed(reply) {
      const ms = (reply.endedAt ?? Math.max(this.now, reply.startedAt)) - reply.startedAt;
      const seconds = Math.floor(ms / 1000);
      if (seconds < 60) return `${(ms / 1000).toFixed(1)} s`;
      return `${String(Math.floor(seconds / 60))} min ${String(seconds % 60)} s`;
    },

    approve(messageId, call, note) {
      chat?.approve(messageId, call, note);
    },

    deny(messageId, call, note) {
      chat?.deny(messageId, call, note);
    },

    answer: answerTo,
    isUndecided,
    blocks: view.blocks,
    sources: view.sources,
    isQuiet: view.isQuiet,
    isThinking: view.isThinking,
    reasoningTitle: view.reasoningTitle,
    toolState: view.toolState,
    toolWords: view.toolWords,
    inputText: view.inputText,
    outputText: view.outputText,
    deadline: view.deadline,
  };
}
