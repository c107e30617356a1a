/** The open conversation in the page's address, behind `#`: for a reload, a bookmark, and a link in another tab. */

/** Null if the address names none. */
export function named(): string | null {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null; // not what `name` writes
  }
}

export function name(id: string | null): void {
  const { pathname, search } = location;
  const end = id === null ? "" : `#${encodeURIComponent(id)}`;
  history.replaceState(null, "", pathname + search + end);
}

/** Call `listener` when the reader changes the address. */
export function onNamed(listener: (id: string | null) => void): void {
  addEventListener("hashchange", () => {
    listener(named());
  });
}
