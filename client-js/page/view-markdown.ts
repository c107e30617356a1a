/** A piece of a reply on the page: Markdown that is rendered as it comes. */

import type { Run, Source } from "../src/view.js";
import { Markdown } from "./markdown/markdown.js";
import { patch, type VNode } from "./markdown/nodes.js";
import { mark, unmarked, type Highlighter } from "./markdown/tokens.js";

let highlighter: Highlighter | null = null;
let loading: Promise<void> | null = null;

/** Load the colours for code; without them, code stays plain. */
function loadHighlighter(): Promise<void> {
  loading ??= import("./markdown/highlight.js")
    .then(({ highlight }) => {
      highlighter = highlight;
    })
    .catch(() => {
      loading = null; // not there now: the next code tries again
    });
  return loading;
}

export class MarkdownView {
  readonly #markdown = new Markdown(highlighter);
  #shown: readonly VNode[] = [];
  #runs: readonly Run[] = [];
  #isOpen = false;
  #isColoured = highlighter !== null;
  #isClosed = false;

  constructor(private readonly place: HTMLElement) {
    place.replaceChildren();
  }

  /** Show `runs`, and say whether more will come. */
  show(runs: readonly Run[], isOpen: boolean): void {
    this.#runs = runs;
    this.#isOpen = isOpen;
    this.#render();
  }

  close(): void {
    this.#isClosed = true;
  }

  #render(): void {
    const { text, sources } = marked(this.#runs);
    const nodes = this.#markdown.update(text, this.#isOpen, sources);
    patch(this.place, this.#shown, nodes);
    this.#shown = nodes;
    if (!this.#isColoured && this.place.querySelector("pre")) void this.#colour();
  }

  async #colour(): Promise<void> {
    this.#isColoured = true;
    await loadHighlighter();
    if (!highlighter || this.#isClosed) return;
    this.#markdown.use(highlighter);
    this.#render();
  }
}

/** The text of runs, in which marks stand for citations. */
function marked(runs: readonly Run[]): { text: string; sources: readonly Source[] } {
  const sources: Source[] = [];
  const texts = runs.map((run) => {
    if (run.type === "text") return unmarked(run.text);
    sources.push(run.source);
    return mark(sources.length - 1);
  });
  return { text: texts.join(""), sources };
}
