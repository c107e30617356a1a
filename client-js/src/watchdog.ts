/**
 * Notices that a reply makes no progress, so that a lost terminal event does not leave it spinning for ever.
 *
 * Progress is a text that the caller makes of what must move; frames that change nothing do not count.
 */
export class Watchdog {
  private readonly watched = new Map<string, Watched>();

  /**
   * @param silenceMs how long without progress until `onSilence`
   * @param onSilence called with the key each time that passes
   */
  constructor(
    private readonly silenceMs: number,
    private readonly onSilence: (key: string) => void,
  ) {}

  /** Begin or go on watching `key`; a changed `progress` starts the time anew. */
  watch(key: string, progress: string): void {
    const entry = this.watched.get(key);
    if (entry?.progress === progress) return;
    if (entry) clearTimeout(entry.timer);
    this.watched.set(key, { progress, count: 0, timer: this.arm(key) });
  }

  /** How many times in a row `key` was silent. */
  silences(key: string): number {
    return this.watched.get(key)?.count ?? 0;
  }

  /** Count from 0 again: there is a reason for the silence. */
  forgive(key: string): void {
    const entry = this.watched.get(key);
    if (entry) entry.count = 0;
  }

  /** Stop watching every key that is not among `keys`. */
  keepOnly(keys: ReadonlySet<string>): void {
    for (const [key, entry] of this.watched) {
      if (keys.has(key)) continue;
      clearTimeout(entry.timer);
      this.watched.delete(key);
    }
  }

  private arm(key: string): ReturnType<typeof setTimeout> {
    return setTimeout(() => {
      const entry = this.watched.get(key);
      if (!entry) return;
      entry.count += 1;
      entry.timer = this.arm(key);
      this.onSilence(key);
    }, this.silenceMs);
  }
}

interface Watched {
  readonly progress: string;
  count: number;
  timer: ReturnType<typeof setTimeout>;
}
