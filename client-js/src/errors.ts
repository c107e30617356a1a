/** What can go wrong, by kind, with one line for people. */

/**
 * `offline`: no answer. `denied`: no valid token, or no permission. `refused`: the server or the model declines.
 * `failed`: anything else.
 */
export type ErrorKind =
  "offline" | "denied" | "refused" | "too_long" | "rate_limit" | "overload" | "failed";

/** What people read when a reply fails for no reason that they need to know. */
export const FAILED_TEXT = "Response unavailable. Please try again.";

/** Of what is `refused` the server says why. */
export const TEXTS: Readonly<Record<Exclude<ErrorKind, "refused">, string>> = {
  offline: "The server cannot be reached.",
  denied: "You are not signed in, or may not do this.",
  too_long: "The message or its conversation is too long.",
  rate_limit: "Too many of your messages wait for a reply. Try again in a moment.",
  overload: "The service is busy. Try again in a moment.",
  failed: FAILED_TEXT,
};

/** 0: there was no answer. */
const BY_STATUS: Readonly<Record<number, ErrorKind | undefined>> = {
  0: "offline",
  401: "denied",
  403: "denied",
  413: "too_long",
  422: "refused",
  429: "rate_limit",
  503: "overload",
};

/** By the `code` of `stream.failed`. */
const BY_CODE: ReadonlyMap<string, ErrorKind> = new Map([
  ["context_window", "too_long"],
  ["overloaded", "overload"],
  ["rate_limited", "overload"],
  ["refusal", "refused"],
]);

/** 200 is an error when the answer was cut; 502 and 504 are a gateway that waited for the server in vain. */
const LOST: readonly (number | null)[] = [null, 200, 502, 504];

/** `message` is for people, `status` that of the HTTP answer; null if there was none. */
export class ApiError extends Error {
  readonly kind: ErrorKind;

  constructor(
    message: string,
    readonly status: number | null,
    /** The server's own words. */
    readonly said?: unknown,
  ) {
    super(message);
    this.name = "ApiError";
    this.kind = BY_STATUS[status ?? 0] ?? "failed";
  }

  /** True when the server no longer knows the reply, and asking again is pointless. */
  get gone(): boolean {
    return this.status === 404 || this.status === 410;
  }

  /** True when the request may have been carried out all the same: only its answer is not there, or not whole. */
  get lost(): boolean {
    return LOST.includes(this.status);
  }
}

/** The error of an answer: in the words of its kind; of a 422 the reason, else the server's `message`. */
export function errorOf(status: number, answer: unknown): ApiError {
  const { message, errors } = (answer ?? {}) as { message?: unknown; errors?: object };
  const kind = BY_STATUS[status];
  const said: unknown =
    kind && kind !== "refused" ? TEXTS[kind] : (Object.values(errors ?? {}).flat()[0] ?? message);
  const text = typeof said === "string" && said;
  return new ApiError(
    text || `The server answered with an error (${String(status)}).`,
    status,
    message,
  );
}

/** Why a reply failed, by what `stream.failed` says. */
export function failure(text: string, code = ""): { kind: ErrorKind; error: string } {
  const kind = BY_CODE.get(code);
  if (!kind) return { kind: "failed", error: text };
  return { kind, error: kind === "refused" ? "The model declined to answer." : TEXTS[kind] };
}
