/** Names that nobody else makes. */

/** 128 random bits. Not `crypto.randomUUID`, which a page over plain HTTP on a LAN does not have. */
export const randomId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    (byte + 256).toString(16).slice(1),
  ).join("");
