/** The three HTTP calls of a chat. Every failure is an {@link ApiError} with one line for people. */

import { parseReplyLog, type ReplyLog } from "./frames.js";
import type { HistoryItem } from "./reducer.js";
import { wellFormed } from "./text.js";

export interface ApiOptions {
  /** Where `/api/chat` is; default: the page's own origin. */
  readonly baseUrl?: string;
  /** The JWT, or a function that gives the current one. */
  readonly token: string | (() => string | Promise<string>);
  /** After this long without an answer a call counts as failed; default 30 s. */
  readonly timeoutMs?: number;
}

export interface SendBody {
  readonly message: string;
  readonly history: readonly HistoryItem[];
  readonly session_id: string;
}

/** 200 is an error when the answer was cut; 502 and 504 are a gateway that waited for the server in vain. */
const LOST: readonly number[] = [200, 502, 504];

/** `status` is that of the HTTP answer; null if there was none. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number | null,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** True when the server no longer knows the reply, and asking again is pointless. */
  get gone(): boolean {
    return this.status === 404 || this.status === 410;
  }

  /** True when the request may have been carried out all the same: only its answer is not there, or not whole. */
  get lost(): boolean {
    return this.status === null || LOST.includes(this.status);
  }
}

export class Api {
  constructor(private readonly options: ApiOptions) {}

  /**
   * Ask for a reply.
   *
   * @param requestId the same id and body give the same message, so a repeated call costs nothing
   * @returns the message id
   * @throws {ApiError}
   */
  async send(body: SendBody, requestId: string): Promise<string> {
    const answer = await this.call("POST", "send", { "Idempotency-Key": requestId }, body);
    const id = (answer as { message_id?: unknown } | null)?.message_id;
    if (typeof id !== "string") throw new ApiError("The server's answer was not understood.", 200);
    return id;
  }

  /** @throws {ApiError} */
  async cancel(messageId: string): Promise<void> {
    await this.call("POST", `${encodeURIComponent(messageId)}/cancel`);
  }

  /**
   * Read what the server has of a reply behind index `after`; -1 for all.
   *
   * @throws {ApiError} `gone` when it is no longer kept
   */
  async fetchReply(messageId: string, after: number): Promise<ReplyLog> {
    const query = after < 0 ? "" : `?after=${String(after)}`;
    const log = parseReplyLog(await this.call("GET", encodeURIComponent(messageId) + query));
    if (!log) throw new ApiError("The server's answer was not understood.", 200);
    return log;
  }

  private async call(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: unknown,
  ): Promise<unknown> {
    const { baseUrl = "", token, timeoutMs = 30_000 } = this.options;
    const bearer = typeof token === "function" ? await token() : token;
    const response = await fetch(`${baseUrl}/api/chat/${path}`, {
      method,
      headers: {
        Accept: "application/json",
        Authorization: `Bearer ${bearer}`,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? null : JSON.stringify(body, carried),
      signal: AbortSignal.timeout(timeoutMs),
    }).catch((): never => {
      throw new ApiError("The server cannot be reached.", null);
    });
    const answer: unknown = await response.json().catch(() => null);
    if (!response.ok) throw new ApiError(errorText(answer, response.status), response.status);
    return answer;
  }
}

/** For `JSON.stringify`: texts that were kept by an earlier version may hold halves of a character. */
const carried = (_name: string, value: unknown): unknown =>
  typeof value === "string" ? wellFormed(value) : value;

/** The first field's reason of a 422, else the server's `message`, else the status. */
function errorText(answer: unknown, status: number): string {
  const { message, errors } = (answer ?? {}) as { message?: unknown; errors?: unknown };
  const reasons = Object.values((errors ?? {}) as Record<string, unknown>).flat();
  const text = reasons.find((reason) => typeof reason === "string") ?? message;
  return typeof text === "string" && text !== ""
    ? text
    : `The server answered with an error (${String(status)}).`;
}
