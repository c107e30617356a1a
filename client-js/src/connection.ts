/** The way to the user's channel: a stock Echo, or pusher-js, and the browser's own word on the network. */

import { TEXTS } from "./errors.js";

type Handler = (name: string, data: unknown) => void;

/** What is used of pusher-js's connection and channels. */
interface Emitter {
  bind_global(handler: Handler): unknown;
  unbind_global(handler: Handler): unknown;
}

/** What is used of a pusher-js instance. */
export interface PusherLike {
  subscribe(channel: string): object;
  readonly connection: object;
}

/** What is used of an Echo instance, whose broadcaster is `reverb` or `pusher`. */
export interface EchoLike {
  private(channel: string): object;
  readonly connector: object;
}

interface Channel extends Emitter {
  readonly name: string;
  readonly subscribed: boolean;
  subscribe(): void;
}

interface Socket extends Emitter {
  readonly state: string;
  readonly socket_id?: string;
  send_event(event: string, data: object, channel?: string): unknown;
}

/**
 * `live`: the subscription is confirmed. `offline`: there is no network, or no connection. `refused`: the server
 * does not let this user listen.
 */
export type Connection = "connecting" | "live" | "offline" | "refused";

export interface Listener {
  /** Whether the server may merge tokens for a connection that is too slow for them. */
  readonly isMerging?: boolean;
  /** Told about every event of the channel. */
  onEvent(name: string, data: unknown): void;
  onConnection(connection: Connection, socketId: string | undefined): void;
}

const RETRY_MS = 2000;
const MAX_RETRY_MS = 60_000;

/** Listen on a user's channel and follow the connection; the returned function undoes it, but stays subscribed. */
export function follow(source: EchoLike | PusherLike, userId: string, to: Listener): () => void {
  const name = `ai-chat.${userId}`;
  const isEcho = "connector" in source;
  const { connection } = isEcho ? (source.connector as { pusher: PusherLike }).pusher : source;
  const channel = (
    isEcho
      ? (source.private(name) as { subscription: object }).subscription
      : source.subscribe(`private-${name}`)
  ) as Channel;
  const socket = connection as Socket;

  let isOffline = (globalThis as { navigator?: { onLine?: boolean } }).navigator?.onLine === false;
  let isRefused = false;
  let isInDoubt = false; // back from offline, on a socket that may be dead
  let timer: ReturnType<typeof setTimeout> | undefined;
  let wait = RETRY_MS;
  let last: Connection | undefined;

  const connected = (): boolean => socket.state === "connected";
  const now = (): Connection => {
    if (isOffline) return "offline";
    if (connected()) {
      if (isRefused) return "refused";
      return channel.subscribed && !isInDoubt ? "live" : "connecting";
    }
    return ["connecting", "initialized"].includes(socket.state) ? "connecting" : "offline";
  };
  const update = (): void => {
    const connection = now();
    if (connection !== last) to.onConnection((last = connection), socket.socket_id);
  };
  const onSubscribed = (): void => {
    if (to.isMerging) socket.send_event("legato:merge_tokens", {}, channel.name);
    update();
  };
  const onError = (error: unknown): void => {
    const { status, error: text } = error as { status?: number; error?: string };
    // Of an error of `channelAuth` pusher-js passes on the text alone.
    isRefused = status === 401 || status === 403 || text === TEXTS.denied;
    clearTimeout(timer);
    // pusher-js asks again only on a new connection.
    if (!isRefused) {
      timer = setTimeout(() => {
        if (connected()) channel.subscribe();
      }, wait);
      wait = Math.min(wait * 2, MAX_RETRY_MS);
    }
    update();
  };
  const onNetwork = ({ type }: Event): void => {
    isOffline = type === "offline";
    if (!isOffline && connected()) {
      isInDoubt = true;
      socket.send_event("pusher:ping", {});
    }
    update();
  };

  const onChannel: Handler = (name, data) => {
    if (name === "pusher:subscription_succeeded") onSubscribed();
    else if (name === "pusher:subscription_error") onError(data);
    else to.onEvent(name, data);
  };
  const onSocket: Handler = (name) => {
    const isChanged = name === "state_change";
    if (!isChanged && name !== "message") return;
    isInDoubt = false;
    if (isChanged) {
      isRefused = false;
      wait = RETRY_MS;
    }
    update();
  };

  channel.bind_global(onChannel);
  socket.bind_global(onSocket);
  const network = typeof addEventListener === "function" ? (["online", "offline"] as const) : [];
  for (const event of network) addEventListener(event, onNetwork);
  if (channel.subscribed) onSubscribed();
  else update();

  return () => {
    clearTimeout(timer);
    channel.unbind_global(onChannel);
    socket.unbind_global(onSocket);
    for (const event of network) removeEventListener(event, onNetwork);
  };
}
