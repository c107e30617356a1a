// Echo as Laravel sets it up: `routes/channels.php` decides who may listen. And the chat over it.

import Alpine from "alpinejs";
import Echo from "laravel-echo";
import Pusher from "pusher-js";
import { legatoAlpine } from "legato-client/alpine";

window.Pusher = Pusher;

window.Echo = new Echo({
  broadcaster: "reverb",
  key: import.meta.env.VITE_REVERB_APP_KEY,
  wsHost: import.meta.env.VITE_REVERB_HOST,
  wsPort: import.meta.env.VITE_REVERB_PORT ?? 80,
  wssPort: import.meta.env.VITE_REVERB_PORT ?? 443,
  forceTLS: (import.meta.env.VITE_REVERB_SCHEME ?? "https") === "https",
  enabledTransports: ["ws", "wss"],
});

/** The token that ChatController signs: it is for Legato's HTTP API. */
async function token() {
  const response = await fetch("/chat-token", { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`no token: ${response.status}`);
  return response.text();
}

const userId = Number(document.querySelector('meta[name="user-id"]').content);
const baseUrl = import.meta.env.VITE_LEGATO_URL;

Alpine.data("chat", () => legatoAlpine({ echo: window.Echo, userId, token, baseUrl }));
Alpine.start();
