/** What the page does with the DOM itself, as Alpine directives. */

import type { Alpine as AlpineType, ElementWithXAttributes } from "alpinejs";

import type { Run } from "../src/view.js";
import { copyText } from "./clipboard.js";
import { MarkdownView } from "./view-markdown.js";

type Directive = Parameters<AlpineType["directive"]>[1];

/** The store `reader`: whether the reader has scrolled away from the newest text, and the way back. */
export interface Reader {
  away: boolean;
  jump: () => void;
}

/** As near to the end as this, in pixels, counts as being there. */
const NEAR_END = 48;

/**
 * `x-stream="text"`: like `x-text`, but a longer text is appended to the node that is there, so that a selection
 * in a reply survives the next token.
 */
const stream: Directive = (el, { expression }, { effect, evaluateLater }) => {
  const read = evaluateLater<string>(expression);
  const node = document.createTextNode("");
  el.replaceChildren(node);
  effect(() => {
    read((text) => {
      if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
      else node.data = text;
    });
  });
};

/** `x-follow` on a scroller: keeps the end in view, unless the reader has scrolled up to read. */
const follow: Directive = (el, _directive, { Alpine, cleanup }) => {
  const reader = Alpine.store("reader") as Reader;
  const toEnd = (): void => {
    el.scrollTop = el.scrollHeight;
  };
  let top = 0;
  const onScroll = (): void => {
    const nearEnd = el.scrollHeight - el.scrollTop - el.clientHeight <= NEAR_END;
    // Only the reader scrolls up; growth alone leaves the position as it is.
    if (nearEnd) reader.away = false;
    else if (el.scrollTop < top) reader.away = true;
    top = el.scrollTop;
  };
  const onGrowth = (): void => {
    if (!reader.away) toEnd();
  };
  reader.jump = () => {
    reader.away = false;
    toEnd();
  };
  const sizes = new ResizeObserver(onGrowth);
  sizes.observe(el);
  for (const child of el.children) sizes.observe(child);
  el.addEventListener("scroll", onScroll, { passive: true });
  cleanup(() => {
    sizes.disconnect();
    el.removeEventListener("scroll", onScroll);
  });
};

/** `x-compose="draft"` on a textarea: grows with its text; Enter sends, Shift+Enter is a new line. */
const compose: Directive = (el, { expression }, { effect, evaluateLater, cleanup }) => {
  const area = el as ElementWithXAttributes<HTMLTextAreaElement>;
  const read = evaluateLater<string>(expression);
  const grow = (): void => {
    area.style.height = "auto";
    area.style.height = `${String(area.scrollHeight)}px`;
  };
  const onKey = (event: KeyboardEvent): void => {
    // While an input method composes a character, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    area.form?.requestSubmit();
  };
  effect(() => {
    read(() => {
      queueMicrotask(grow);
    });
  });
  area.addEventListener("keydown", onKey);
  cleanup(() => {
    area.removeEventListener("keydown", onKey);
  });
};

/** `x-refocus="id"` on a button: a click gives the focus to that element. */
const refocus: Directive = (el, { expression }) => {
  el.addEventListener("click", () => document.getElementById(expression)?.focus());
};

/** `x-unfold="condition"` on a details element: open while it holds, closed when it no longer does. */
const unfold: Directive = (el, { expression }, { effect, evaluateLater }) => {
  const details = el as ElementWithXAttributes<HTMLDetailsElement>;
  const read = evaluateLater<boolean>(expression);
  let before = false;
  effect(() => {
    read((now) => {
      // What the reader opened or closed since stays so.
      if (now !== before) details.open = now;
      before = now;
    });
  });
};

/** `x-refold` on a button that will vanish: a click gives the focus to the summary of its section. */
const refold: Directive = (el) => {
  el.addEventListener("click", () => el.closest("section")?.querySelector("summary")?.focus());
};

/** `x-markdown="[runs, isGrowing]"`: shows runs of text and citations as Markdown. */
const markdown: Directive = (el, { expression }, { effect, evaluateLater, cleanup }) => {
  const view = new MarkdownView(el);
  const read = evaluateLater<[readonly Run[], boolean]>(expression);
  effect(() => {
    read(([runs, isGrowing]) => {
      view.show(runs, isGrowing);
    });
  });
  const onClick = ({ target }: Event): void => {
    const button = (target as Element).closest("button.copy");
    if (button) void copyCode(button);
  };
  el.addEventListener("click", onClick);
  cleanup(() => {
    view.close();
    el.removeEventListener("click", onClick);
  });
};

const COPIED_MS = 1_600;

/** Copy the code below a button, and let the button say so. */
async function copyCode(button: Element): Promise<void> {
  const code = button.closest("figure")?.querySelector("pre")?.textContent ?? "";
  if (!(await copyText(code))) return;
  button.setAttribute("data-done", "");
  button.setAttribute("aria-label", "Code copied");
  setTimeout(() => {
    button.removeAttribute("data-done");
    button.setAttribute("aria-label", "Copy code");
  }, COPIED_MS);
}

/** `x-focused`: takes the focus when it appears, with the caret behind its text. */
const focused: Directive = (el, _directive, { Alpine }) => {
  void Alpine.nextTick(() => {
    el.focus();
    if (el instanceof HTMLTextAreaElement || el instanceof HTMLInputElement) {
      el.setSelectionRange(el.value.length, el.value.length);
    }
  });
};

/** As near to the end as this, in pixels, the next page is asked for. */
const NEAR_MORE = 200;

/** `x-more="more()"` on a scroller: runs whenever its end is near. */
const more: Directive = (el, { expression }, { evaluateLater, cleanup }) => {
  const run = evaluateLater(expression);
  const onScroll = (): void => {
    if (el.scrollHeight - el.scrollTop - el.clientHeight < NEAR_MORE) run();
  };
  el.addEventListener("scroll", onScroll, { passive: true });
  cleanup(() => {
    el.removeEventListener("scroll", onScroll);
  });
};

/** By the name that follows `x-`. */
export const all: Readonly<Record<string, Directive>> = {
  ...{ compose, focused, follow, markdown, more, refocus, refold, stream, unfold },
};
