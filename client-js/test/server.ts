/** A server as small as can be that speaks HTTP and Pusher, for a stock Echo; each test writes its part. */

import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import Echo from "laravel-echo";
import Pusher from "pusher-js";
import { WebSocketServer, type WebSocket } from "ws";

import type { HistoryItem } from "../src/api.js";

/** A message as it is sent: with a history, or with the name of a conversation that the server keeps. */
export interface SendBody {
  readonly message: string;
  readonly history: readonly HistoryItem[];
  readonly session_id: string;
  readonly conversation_id?: string;
  readonly parent_id?: string;
  readonly regenerate?: boolean;
  readonly [option: string]: unknown;
}

export interface Answer {
  readonly status?: number;
  readonly body: unknown;
}

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly authorization: string;
  readonly idempotencyKey: string;
  readonly socketId: string | undefined;
  readonly body: SendBody;
}

type Reply = (seen: Seen) => Answer | Promise<Answer>;

const NOT_FOUND: Answer = { status: 404, body: { message: "No such message." } };

export class ChatServer {
  readonly requests: Seen[] = [];
  /** What clients sent over their sockets. */
  readonly messages: { readonly event: string; readonly channel?: string }[] = [];
  /** How the calls are answered; replaced by tests. */
  send: Reply = () => ({ body: { message_id: "m1" } });
  cancel: Reply = () => ({ body: { cancelled: true } });
  read: Reply = () => NOT_FOUND;
  conversations: Reply = () => NOT_FOUND;
  decide: Reply = () => ({ body: {} });
  authorize: Reply = () => ({ body: { auth: "app-key:signature" } });
  /** Whether a subscribe is confirmed, left without an answer, or refused by the auth endpoint. */
  subscription: "confirm" | "silent" | "refuse" = "confirm";

  private readonly http = createServer((request, response) => {
    void this.answer(request, response);
  });
  private readonly sockets = new Set<WebSocket>();
  private readonly echoes: Echo<"reverb">[] = [];

  async start(): Promise<void> {
    const server = new WebSocketServer({ server: this.http });
    server.on("connection", (socket: WebSocket) => {
      this.welcome(socket);
    });
    this.http.listen(0, "127.0.0.1");
    await once(this.http, "listening");
  }

  async stop(): Promise<void> {
    for (const echo of this.echoes) echo.disconnect();
    this.dropSockets();
    this.http.closeAllConnections();
    this.http.close();
    await once(this.http, "close");
  }

  get url(): string {
    return `http://127.0.0.1:${String(this.port)}`;
  }

  private get port(): number {
    return (this.http.address() as AddressInfo).port;
  }

  /** A stock Echo, as an app makes it. */
  echo(more: object = {}): Echo<"reverb"> {
    const echo = new Echo({
      broadcaster: "reverb",
      Pusher,
      key: "app-key",
      wsHost: "127.0.0.1",
      wsPort: this.port,
      forceTLS: false,
      enabledTransports: ["ws"],
      authEndpoint: `${this.url}/broadcasting/auth`,
      ...more,
    });
    this.echoes.push(echo);
    return echo;
  }

  /** Send an event on the channel of user 7. */
  emit(event: string, data: object): void {
    this.toAll({ event, channel: "private-ai-chat.7", data: JSON.stringify(data) });
  }

  tokens(from: number, to: number, messageId = "m1"): void {
    for (let tokenIndex = from; tokenIndex < to; tokenIndex += 1) {
      this.emit("token.received", { userId: 7, messageId, token: word(tokenIndex), tokenIndex });
    }
  }

  completed(totalTokens: number, messageId = "m1"): void {
    this.emit("stream.completed", { userId: 7, messageId, totalTokens });
  }

  dropSockets(): void {
    for (const socket of this.sockets) socket.terminate();
  }

  /** Confirm what was left without an answer. */
  confirm(): void {
    const event = "pusher_internal:subscription_succeeded";
    this.toAll({ event, channel: "private-ai-chat.7", data: "{}" });
  }

  seen(method: string, path: string): Seen[] {
    return this.requests.filter((seen) => seen.method === method && seen.path.startsWith(path));
  }

  /** How many sockets are subscribed or not. */
  get connections(): number {
    return this.sockets.size;
  }

  private toAll(message: object): void {
    for (const socket of this.sockets) socket.send(JSON.stringify(message));
  }

  private welcome(socket: WebSocket): void {
    this.sockets.add(socket);
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("message", (data: Buffer) => {
      const message = JSON.parse(data.toString()) as { event: string; channel?: string };
      this.messages.push(message);
      if (message.event === "pusher:ping") socket.send('{"event":"pusher:pong","data":"{}"}');
      if (message.event === "pusher:subscribe" && this.subscription === "confirm") this.confirm();
    });
    const data = JSON.stringify({ socket_id: "1.1", activity_timeout: 30 });
    socket.send(JSON.stringify({ event: "pusher:connection_established", data }));
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks = (await request.toArray()) as Buffer[];
    const { method = "", url: path = "", headers } = request;
    const isJson = headers["content-type"] === "application/json";
    const seen: Seen = {
      method,
      path,
      authorization: headers.authorization ?? "",
      idempotencyKey: String(headers["idempotency-key"]),
      socketId: headers["x-socket-id"] as string | undefined,
      body: (isJson ? JSON.parse(Buffer.concat(chunks).toString()) : {}) as SendBody,
    };
    this.requests.push(seen);
    const { status = 200, body } = await this.route(seen);
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(JSON.stringify(body));
  }

  private route(seen: Seen): Answer | Promise<Answer> {
    if (seen.path === "/broadcasting/auth") {
      const refused = this.subscription === "refuse";
      return refused ? { status: 403, body: {} } : this.authorize(seen);
    }
    if (seen.path.startsWith("/api/conversations")) return this.conversations(seen);
    if (seen.path === "/api/chat/send") return this.send(seen);
    if (seen.path.includes("/tools/")) return this.decide(seen);
    return seen.path.endsWith("/cancel") ? this.cancel(seen) : this.read(seen);
  }
}

export const word = (index: number): string => `w${String(index)} `;

export const words = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, offset) => word(from + offset));

/** Body of `GET /api/chat/{id}?after=i` for a reply of which `count` tokens exist. */
export function logOf(seen: Seen, count: number, status: string): Answer {
  const after = Number(new URL(seen.path, "http://x").searchParams.get("after") ?? -1);
  const text = words(0, count).join("");
  const body = { text, tokens: words(after + 1, count), nextIndex: count, attempt: 1, status };
  return { body };
}

/** Wait until `condition` gives something true, and return it. */
export async function until<T>(what: string, condition: () => T): Promise<T> {
  const deadline = Date.now() + 40_000;
  for (;;) {
    const value = condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
