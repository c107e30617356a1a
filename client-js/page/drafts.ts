/** What was written and not sent, by conversation. It survives a reload and is shared by all tabs. */

/** The part of the Web Storage API that is used. */
type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** The oldest are forgotten beyond this. */
const MAX_DRAFTS = 50;

/** A longer text is kept no longer than the page. */
const MAX_CHARACTERS = 200_000;

export class Drafts {
  /** @param name of the entry in `storage`, such as one that has the user's id in it */
  constructor(
    private readonly storage: Store | null,
    private readonly name: string,
  ) {}

  get(conversation: string): string {
    return this.#all().find(([id]) => id === conversation)?.[1] ?? "";
  }

  set(conversation: string, text: string): void {
    const others = this.#all().filter(([id]) => id !== conversation);
    const isKept = text.trim() !== "" && text.length <= MAX_CHARACTERS;
    const all = isKept ? [...others, [conversation, text]] : others;
    try {
      if (all.length === 0) this.storage?.removeItem(this.name);
      else this.storage?.setItem(this.name, JSON.stringify(all.slice(-MAX_DRAFTS)));
    } catch {
      // Full or forbidden: a reload loses the draft, and nothing else does.
    }
  }

  /** Oldest first; empty if what is stored was not written by {@link set}. */
  #all(): [string, string][] {
    try {
      const stored: unknown = JSON.parse(this.storage?.getItem(this.name) ?? "[]");
      return Array.isArray(stored) ? stored.filter(isDraft) : [];
    } catch {
      return [];
    }
  }
}

const isDraft = (value: unknown): value is [string, string] =>
  Array.isArray(value) && value.length === 2 && value.every((item) => typeof item === "string");
