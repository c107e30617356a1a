/** What the page does with the DOM itself, as Alpine directives. */

import type { Alpine as AlpineType, ElementWithXAttributes } from "alpinejs";

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
export const stream: Directive = (el, { expression }, { effect, evaluateLater }) => {
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
export const follow: Directive = (el, _directive, { Alpine, cleanup }) => {
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
export const compose: Directive = (el, { expression }, { effect, evaluateLater, cleanup }) => {
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
export const refocus: Directive = (el, { expression }) => {
  el.addEventListener("click", () => document.getElementById(expression)?.focus());
};
