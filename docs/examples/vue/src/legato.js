// Where Legato is, who the user is, and an Echo that says so.

import Echo from "laravel-echo";
import Pusher from "pusher-js";
import { channelAuth } from "legato-client/auth";

export const baseUrl = import.meta.env.VITE_LEGATO_URL;
export const userId = Number(document.querySelector("meta[name=user-id]").content);

/** For development only: your back end signs the token. */
export async function token() {
  const response = await fetch(`${baseUrl}/dev/token?sub=${userId}`);
  if (!response.ok) throw new Error(`no token: ${response.status}`);
  return (await response.json()).token;
}

const { hostname, port, protocol } = new URL(baseUrl);

export const echo = new Echo({
  broadcaster: "reverb",
  Pusher,
  key: import.meta.env.VITE_LEGATO_KEY,
  wsHost: hostname,
  wsPort: port || 80,
  wssPort: port || 443,
  forceTLS: protocol === "https:",
  enabledTransports: ["ws", "wss"],
  ...channelAuth({ baseUrl, token }),
});
