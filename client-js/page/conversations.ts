/** The list of conversations beside the chat. */

import type { ConversationItem, ConversationList } from "../src/conversations.js";
import type { Magics } from "./members.js";

type Item = ConversationItem;

export interface Group {
  readonly title: string;
  readonly items: readonly Item[];
}

const DAY_MS = 86_400_000;

/** Days back from the beginning of today → the group's title. */
const GROUPS: readonly (readonly [number, string])[] = [
  [0, "Today"],
  [1, "Yesterday"],
  [7, "Last 7 days"],
  [30, "Last 30 days"],
  [Infinity, "Earlier"],
];

/** Conversations by when they were used, in the order in which they come. */
export function grouped(items: readonly Item[], now: Date): readonly Group[] {
  const today = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const titleOf = ({ updatedAt }: Item): string => {
    const days = Math.ceil((today - Date.parse(updatedAt)) / DAY_MS);
    return GROUPS.find(([most]) => days <= most)?.[1] ?? "Earlier";
  };
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const title = titleOf(item);
    groups.set(title, [...(groups.get(title) ?? []), item]);
  }
  return [...groups].map(([title, own]) => ({ title, items: own }));
}

export interface ListComponent extends Partial<Magics> {
  items: readonly Item[];
  isLoading: boolean;
  hasMore: boolean;
  problem: string;
  /** What is searched for, while it is typed. */
  wanted: string;
  /** The id of the conversation that is being renamed, and its new name. */
  renaming: string;
  name: string;
  readonly groups: readonly Group[];
  readonly isBare: boolean;
  readonly bareText: string;
  init(): void;
  find(): void;
  more(): void;
  beginName(item: Item): void;
  saveName(item: Item): void;
  askRemove(item: Item): void;
}

export function conversationList(list: ConversationList | null): ListComponent {
  return {
    ...{ items: [], isLoading: false, hasMore: false, problem: "" },
    ...{ wanted: "", renaming: "", name: "" },

    get groups() {
      return grouped(this.items, new Date());
    },

    get isBare() {
      return this.items.length === 0 && !this.isLoading && this.problem === "";
    },

    get bareText() {
      return this.wanted.trim() === "" ? "Your conversations will be here." : "Nothing found.";
    },

    init() {
      const show = (): void => {
        const snapshot = list?.getSnapshot();
        if (!snapshot) return;
        const { items, isLoading, hasMore, error } = snapshot;
        Object.assign(this, { items, isLoading, hasMore, problem: error?.text ?? "" });
      };
      list?.subscribe(show);
      show();
    },

    find() {
      void list?.search(this.wanted);
    },

    more() {
      if (this.hasMore && !this.isLoading) void list?.loadMore();
    },

    beginName(item) {
      this.name = item.title ?? "";
      this.renaming = item.id;
    },

    saveName(item) {
      if (this.renaming !== item.id) return;
      this.renaming = "";
      const name = this.name.trim();
      if (name !== "" && name !== item.title) void list?.rename(item.id, name);
    },

    askRemove(item) {
      this.$dispatch?.("ask-remove", item);
    },
  };
}

export interface Confirmation {
  title: string;
  id: string;
  ask(event: CustomEvent<Item>): void;
  close(): void;
  confirm(): void;
}

const dialog = (): HTMLDialogElement | null => document.querySelector("dialog.confirm");

/** Asks before a conversation is deleted. */
export function confirmation(list: ConversationList | null): Confirmation {
  return {
    ...{ title: "", id: "" },

    ask({ detail }) {
      this.id = detail.id;
      this.title = detail.title ?? "New chat";
      dialog()?.showModal();
    },

    close() {
      dialog()?.close();
    },

    confirm() {
      dialog()?.close();
      void list?.remove(this.id);
    },
  };
}
