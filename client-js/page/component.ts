/** The chat of the page: the package's Alpine component, and what a person has besides it. */

import { legatoAlpine, type AlpineOptions, type ChatComponent } from "../src/alpine.js";
import type { ConversationItem } from "../src/conversations.js";
import type { ErrorKind } from "../src/errors.js";
import { tooLong } from "../src/limits.js";
import { isUnsent, type Turn } from "../src/reducer.js";
import { isOpen } from "../src/reply.js";
import type { Block } from "../src/view.js";
import * as address from "./address.js";
import { copyText } from "./clipboard.js";
import type { ChatConfig } from "./config.js";
import { costOf, money } from "./cost.js";
import { Drafts } from "./drafts.js";
import { drawer, type Drawer } from "./drawer.js";
import { fileTray, filesOf, type FileTray, type ShownFile } from "./file-tray.js";
import { withMembers, type Magics } from "./members.js";
import { Speech, type Piece } from "./speech.js";

const COPIED_MS = 1_600;

const FAILURES: Readonly<Record<ErrorKind, string>> = {
  offline: "Not sent",
  denied: "Not allowed",
  refused: "Declined",
  too_long: "Too long",
  rate_limit: "Too many at once",
  overload: "Busy",
  failed: "That did not work",
};

/** Failures that the same message would meet again. */
const FINAL: readonly (ErrorKind | null)[] = ["refused", "too_long"];

export interface PageOptions {
  readonly chat: AlpineOptions;
  readonly config: ChatConfig;
  /** For drafts. */
  readonly storage: Storage | null;
  /** Whether there is a list of conversations. */
  readonly hasList: boolean;
}

interface ChatMembers {
  /** The user's turn that is being changed. */
  editing: { readonly key: string; text: string } | null;
  /** Why the changed text cannot be sent; empty if it can. */
  readonly editProblem: string;
  /** The model of the next message; empty for the server's own. */
  model: string;
  readonly models: readonly string[];
  /** The key of the turn that was copied a moment ago. */
  copied: string;
  /** The last pieces of a reply for a screen reader. */
  said: readonly Piece[];
  /** What the status line says: never a whole reply. */
  readonly news: string;
  readonly isOffline: boolean;
  /** Whether there is something to stop. */
  readonly isBusy: boolean;
  /** Whether the Send button does something. */
  readonly isReady: boolean;
  /** Why the last message was not taken, unless the draft itself says so. */
  readonly refusal: string;
  say(text?: string): void;
  /** Tell a screen reader what is new. For `x-effect`: `$watch` would compare whole conversations. */
  tell(): void;
  isEditing(turn: Turn): boolean;
  beginEdit(turn: Turn): void;
  endEdit(): void;
  saveEdit(): void;
  /** Change the message that was declined. */
  rephrase(turn: Turn): void;
  copy(turn: Turn): Promise<void>;
  /** Escape: ends what is nearest to the reader, at last the reply. */
  escape(event: KeyboardEvent): void;
  /** Whether more text will come at the end of this block. */
  isGrowing(turn: Turn, block: Block): boolean;
  isUnsent(turn: Turn): boolean;
  filesOf(turn: Turn): readonly ShownFile[];
  failureTitle(turn: Turn): string;
  mayRetry(turn: Turn): boolean;
  mayRegenerate(turn: Turn): boolean;
  hasTime(turn: Turn): boolean;
  /** Such as `12 tokens`; of a stored reply, as the model counts them. Empty if it is not known. */
  tokens(turn: Turn): string;
  /** Such as `$0.0012`; empty if it is not known. */
  cost(turn: Turn): string;
}

/** What there is of the conversation as a whole. */
interface ConversationMembers {
  readonly hasList: boolean;
  readonly title: string;
  readonly isEmpty: boolean;
  readonly isLoading: boolean;
  readonly hasEarlier: boolean;
  /** Why the conversation is not there; empty if it is. */
  readonly problem: string;
  /** The conversation's id, or `new`: what its draft is kept under, and what the address ends with. */
  readonly place: string;
  isOpenItem(item: ConversationItem): boolean;
  choose(item: ConversationItem, event: MouseEvent): void;
  startNew(): void;
}

export type PageMembers = ChatMembers & ConversationMembers;

export type ChatPage = ChatComponent & Drawer & FileTray & PageMembers & Partial<Magics>;

const NEW = "new";

/** Escape empties a search field first. */
const clearsItself = (target: EventTarget | null): boolean =>
  target instanceof HTMLInputElement && target.type === "search" && target.value !== "";

const statusOf = (turn: Turn): string => (turn.role === "user" ? "" : turn.status);

export function chatPage({ chat, config, storage, hasList }: PageOptions): ChatPage {
  const base = withMembers(legatoAlpine(chat), {
    ...drawer(),
    ...fileTray(config.allow.includes("attachments") ? config.attachments : null),
  });
  // Not a method that is called on `base`: Alpine makes another object of it.
  const { init } = base as { init: (this: ChatComponent) => void };
  const drafts = new Drafts(storage, `legato-drafts:${String(chat.userId)}`);
  const speech = new Speech();

  return withMembers<
    ChatComponent & Drawer & FileTray & Partial<Magics>,
    PageMembers & { init(): void }
  >(base, {
    ...{ editing: null, model: "", copied: "", said: [] },
    models: config.allow.includes("model") ? config.models : [],

    init() {
      init.call(this);
      speech.skip(this.turns);
      const visit = (id: string | null): void => {
        if (hasList && id !== null && id !== this.conversation?.id) this.open(id);
      };
      visit(address.named());
      address.onNamed(visit);
      this.draft = drafts.get(this.place);
      this.$watch?.("draft", () => {
        drafts.set(this.place, this.draft);
      });
      this.$watch?.("place", () => {
        address.name(this.conversation?.id ?? null);
        this.draft = drafts.get(this.place);
        this.editing = null;
        speech.clear();
      });
    },

    get news() {
      const isWhole = this.announcement.startsWith("Reply: ");
      return isWhole ? "The reply is complete." : this.announcement;
    },

    get isOffline() {
      return this.connection === "offline";
    },

    get isBusy() {
      return this.activeStreams.length > 0;
    },

    get isReady() {
      return this.canSend && this.draft.trim() !== "" && this.tooLong === "";
    },

    get refusal() {
      return this.error && this.error.kind !== "too_long" ? this.error.text : "";
    },

    get hasList() {
      return hasList && this.conversation?.isStored !== false;
    },

    get title() {
      return this.conversation?.title ?? "";
    },

    get isEmpty() {
      return this.turns.length === 0 && !this.isLoading && this.problem === "";
    },

    get isLoading() {
      return this.conversation?.isLoading === true && this.turns.length === 0;
    },

    get hasEarlier() {
      return this.conversation?.hasEarlier === true;
    },

    get problem() {
      if (this.conversation?.isGone) return "This conversation was deleted.";
      return this.conversation?.error?.text ?? "";
    },

    get place() {
      return this.conversation?.id ?? NEW;
    },

    isOpenItem(item) {
      return item.id === this.conversation?.id;
    },

    choose(item, event) {
      // As with any link, these keys open another tab.
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.open(item.id);
      this.closeDrawer();
    },

    startNew() {
      this.clear();
      this.closeDrawer();
    },

    tell() {
      this.said = speech.news(this.turns);
    },

    say(text) {
      if (text === undefined && !this.isReady) {
        this.send(); // says why not
        return;
      }
      const { place } = this;
      this.send(text, {
        ...this.takeFiles(),
        ...(this.model !== "" && { model: this.model }),
      });
      speech.clear();
      // The first message of a conversation has given it a place of its own.
      if (text === undefined) drafts.set(place, this.draft);
    },

    isEditing(turn) {
      return this.editing?.key === turn.key;
    },

    get editProblem() {
      return tooLong(this.editing?.text.trim() ?? "", config.max_message_characters);
    },

    beginEdit(turn) {
      this.editing = { key: turn.key, text: turn.text };
    },

    endEdit() {
      this.editing = null;
    },

    saveEdit() {
      const { editing } = this;
      if (!editing || !this.edit(editing.key, editing.text)) return;
      this.editing = null;
      document.getElementById("draft")?.focus();
    },

    rephrase(turn) {
      const question = this.turns[this.turns.findIndex(({ key }) => key === turn.key) - 1];
      if (question?.role === "user") this.beginEdit(question);
    },

    async copy(turn) {
      if (!(await copyText(turn.text))) return;
      this.copied = turn.key;
      setTimeout(() => {
        if (this.copied === turn.key) this.copied = "";
      }, COPIED_MS);
    },

    escape(event) {
      // A dialog closes by itself, and an input method takes back what it has begun.
      if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]"))
        return;
      if (clearsItself(event.target)) return;
      if (this.editing) this.editing = null;
      else if (this.isDrawerOpen) this.closeDrawer();
      else if (this.isBusy) this.stop();
    },

    isGrowing(turn, block) {
      if (turn.role === "user" || !isOpen(turn)) return false;
      return this.blocks(turn).at(-1)?.key === block.key;
    },

    isUnsent: (turn) => isUnsent(turn),
    filesOf: (turn) => filesOf(turn),

    failureTitle: (turn) => (turn.role === "user" ? "" : FAILURES[turn.errorKind ?? "failed"]),
    mayRetry: (turn) => turn.role === "assistant" && !FINAL.includes(turn.errorKind),

    mayRegenerate: (turn) => ["complete", "cancelled"].includes(statusOf(turn)),

    hasTime: (turn) =>
      turn.role === "assistant" &&
      !["waiting", "unsent", "failed"].includes(turn.status) &&
      turn.endedAt !== turn.startedAt,

    tokens(turn) {
      const count = turn.role === "user" ? 0 : turn.nextIndex || (turn.usage?.output ?? 0);
      if (count === 0) return "";
      return count === 1 ? "1 token" : `${String(count)} tokens`;
    },

    cost: (turn) =>
      turn.role === "user"
        ? ""
        : money(costOf(turn.model, turn.usage, config.prices), config.prices?.currency ?? ""),
  });
}
