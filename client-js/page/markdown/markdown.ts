/** Markdown that grows: only what may still change is parsed again. */

import { Lexer, type Links, type Token } from "marked";

import type { Source } from "../../src/view.js";
import { completed } from "./completed.js";
import type { VNode } from "./nodes.js";
import { block, TOP_LEVEL, type Highlighter } from "./tokens.js";

/** What follows the blocks that are settled. The one before the last may still join it, as items of a list do. */
const OPEN_BLOCKS = 2;

interface Made {
  readonly raw: string;
  readonly levelBefore: number;
  readonly levelAfter: number;
  readonly nodes: readonly VNode[];
}

/** One text on its way. {@link update} gives all its nodes; those of a block that did not change are the same objects. */
export class Markdown {
  #source = "";
  /** Where the first block begins that may still change. */
  #settledAt = 0;
  #settled: Made[] = [];
  #open: Made[] = [];
  #links: Links = {};
  #sources: readonly Source[] = [];

  constructor(private highlight: Highlighter | null = null) {}

  /** Show code with this from the next update on. */
  use(highlight: Highlighter): void {
    this.highlight = highlight;
    this.#forget();
  }

  /**
   * Take the whole text as it is now, and say whether more will come.
   *
   * @param sources what its citation marks stand for
   */
  update(text: string, isOpen: boolean, sources: readonly Source[] = []): readonly VNode[] {
    const source = text.replace(/\r\n?/g, "\n");
    if (!source.startsWith(this.#source.slice(0, this.#settledAt))) this.#forget();
    this.#source = source;
    this.#sources = sources;
    if (!isOpen && this.#hasLinks(source)) this.#forget(); // what stands last may explain what stands first
    const rest = source.slice(this.#settledAt);
    const lexer = new Lexer({ gfm: true, breaks: true });
    Object.assign(lexer.tokens.links, this.#links);
    const tokens = lexer.lex(isOpen ? completed(rest) : rest);
    this.#open = this.#make(tokens);
    if (isOpen) this.#settle(rest, tokens.links);
    return [...this.#settled, ...this.#open].flatMap(({ nodes }) => nodes);
  }

  /** The number of characters whose blocks will not change any more. */
  get settledAt(): number {
    return this.#settledAt;
  }

  #forget(): void {
    this.#settledAt = 0;
    this.#settled = [];
    this.#open = [];
    this.#links = {};
  }

  #hasLinks(source: string): boolean {
    return this.#settledAt > 0 && /^ {0,3}\[[^\]\n]+\]:/m.test(source);
  }

  #make(tokens: readonly Token[]): Made[] {
    let level = this.#settled.at(-1)?.levelAfter ?? TOP_LEVEL;
    return tokens.map((token, index) => {
      const old = this.#open[index];
      if (old?.raw === token.raw && old.levelBefore === level && !old.raw.includes("[")) {
        level = old.levelAfter;
        return old;
      }
      const { highlight } = this;
      const context = { sources: this.#sources, level, highlight, waiting: null };
      const nodes = block(token, context);
      const made = { raw: token.raw, levelBefore: level, levelAfter: context.level, nodes };
      level = context.level;
      return made;
    });
  }

  /** Settle all blocks but the last ones. */
  #settle(rest: string, links: Links): void {
    const shown = this.#open.filter(({ raw }) => raw.trim() !== "");
    if (shown.length <= OPEN_BLOCKS) return;
    const firstOpen = shown.at(-OPEN_BLOCKS);
    let [count, length] = [0, 0];
    for (const made of this.#open) {
      // The parser must have taken the text as it stands, or the place is not known.
      if (made === firstOpen || !rest.startsWith(made.raw, length)) break;
      count += 1;
      length += made.raw.length;
    }
    this.#settled.push(...this.#open.splice(0, count));
    this.#settledAt += length;
    this.#links = { ...links };
  }
}
