/** Who is told of the changes of an observable store. */
export interface Listeners {
  /** Tell them all. */
  readonly notify: () => void;
  readonly subscribe: (listener: () => void) => () => void;
}

/** Calls `open` with each that comes, and `close` when none is left. */
export function createListeners(open: () => void, close: () => void): Listeners {
  const listeners = new Set<() => void>();
  return {
    notify() {
      for (const listener of [...listeners]) listener();
    },
    subscribe(listener) {
      const own = (): void => {
        listener();
      };
      listeners.add(own);
      open();
      return () => {
        listeners.delete(own);
        // Not at once: React, in StrictMode, and a change of page subscribe again in the same moment.
        queueMicrotask(() => {
          if (listeners.size === 0) close();
        });
      };
    },
  };
}
