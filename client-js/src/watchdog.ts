/** Notices that a reply makes no progress, so that a lost terminal event does not leave it spinning for ever. */

/** A reply that is watched. */
export interface Watched {
  /** What must move: frames that change nothing do not count. */
  readonly progress: string;
  /** How many times in a row it was silent. */
  count: number;
  readonly timer: ReturnType<typeof setInterval>;
}

/**
 * Watch these keys and no others from now on; a changed `progress` starts the time and the count anew.
 *
 * @param silenceMs how long without progress until `onSilence`
 * @param onSilence called with the key each time that passes
 */
export function watch(
  watched: Map<string, Watched>,
  now: ReadonlyMap<string, string>,
  silenceMs: number,
  onSilence: (key: string) => void,
): void {
  for (const [key, { progress, timer }] of watched) {
    if (now.get(key) === progress) continue;
    clearInterval(timer);
    watched.delete(key);
  }
  for (const [key, progress] of now) {
    if (watched.has(key)) continue;
    const silent = (): void => {
      entry.count += 1;
      onSilence(key);
    };
    const entry: Watched = { progress, count: 0, timer: setInterval(silent, silenceMs) };
    watched.set(key, entry);
  }
}
