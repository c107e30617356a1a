/** The chat page: who am I, a stock Echo, and the component. */

import Alpine from "@alpinejs/csp";
import Echo from "laravel-echo";
import Pusher from "pusher-js";

import { legatoChat } from "../src/chat.js";
import { compose, follow, refocus, stream, type Reader } from "./directives.js";

interface Config {
  readonly key: string;
  readonly provider: string;
  readonly model: string | null;
}

/** Text that follows the state, in one place. */
const CONNECTION = {
  connecting: "Connecting",
  live: "Connected",
  offline: "Offline",
  refused: "Refused",
};

const PROMPTS = [
  "Explain legato to someone who has never read music",
  "Write a haiku about a message that arrives in order",
  "What is the difference between a queue and a log?",
];

const SCRIPTED = "Scripted replies: set ANTHROPIC_API_KEY for real ones.";

async function getJson(path: string): Promise<unknown> {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`${path} answered ${String(response.status)}`);
  return response.json();
}

/** What a stock app writes: Pusher on the window, an Echo that knows the server and the user's token. */
function connect(key: string, token: string): Echo<"reverb"> {
  (window as unknown as { Pusher: typeof Pusher }).Pusher = Pusher;
  return new Echo({
    broadcaster: "reverb",
    key,
    wsHost: location.hostname,
    wsPort: Number(location.port || 80),
    wssPort: Number(location.port || 443),
    forceTLS: location.protocol === "https:",
    enabledTransports: ["ws", "wss"],
    bearerToken: token,
  });
}

/** Who answers, below the input. */
function providerLine({ provider, model }: Config): string {
  if (provider === "scripted") return SCRIPTED;
  const name = provider === "anthropic" ? "Anthropic" : provider;
  return model ? `Replies by ${name}, ${model}` : `Replies by ${name}`;
}

async function start(): Promise<void> {
  const user = new URLSearchParams(location.search).get("user") ?? "7";
  const [config, { token }] = (await Promise.all([
    getJson("/dev/config"),
    getJson(`/dev/token?sub=${encodeURIComponent(user)}`),
  ])) as [Config, { token: string }];
  const echo = connect(config.key, token);

  Alpine.directive("compose", compose);
  Alpine.directive("follow", follow);
  Alpine.directive("refocus", refocus);
  Alpine.directive("stream", stream);
  const reader: Reader = { away: false, jump: () => undefined };
  Alpine.store("reader", reader);
  Alpine.store("words", {
    connection: CONNECTION,
    prompts: PROMPTS,
    provider: providerLine(config),
  });
  Alpine.data("legatoChat", () => legatoChat({ echo, userId: user, token }));
  Alpine.start();
  // On a phone the keyboard would cover half of the page before anybody asked for it.
  if (matchMedia("(hover: hover)").matches) document.getElementById("draft")?.focus();
}

start().catch((error: unknown) => {
  const place = document.getElementById("boot");
  if (!place) return;
  place.textContent = `The chat could not start: ${error instanceof Error ? error.message : String(error)}.`;
  place.hidden = false;
});
