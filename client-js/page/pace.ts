/** How often the page follows its chat: each change at once, as long as that leaves it time for its reader. */

/** Between two changes there is this many times as long as the last one took. */
const REST = 3;

/** But no less than a frame, and no more than a reader bears. */
const LEAST_MS = 16;
const MOST_MS = 400;

/** Make `show` run at once, or as soon as it may; calls until then are one. */
export function paced(show: () => void): () => void {
  let nextAt = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const run = (): void => {
    timer = undefined;
    const begun = performance.now();
    nextAt = begun + LEAST_MS;
    show();
    // Alpine changes the page in a microtask that `show` has queued.
    queueMicrotask(() => {
      const now = performance.now();
      nextAt = now + Math.min(Math.max((now - begun) * REST, LEAST_MS), MOST_MS);
    });
  };
  return () => {
    const wait = nextAt - performance.now();
    if (wait <= 0 && timer === undefined) run();
    else timer ??= setTimeout(run, wait);
  };
}
