/** The chat page: who am I, a stock Echo, and the component. */

import Alpine from "@alpinejs/csp";
import Echo from "laravel-echo";
import Pusher from "pusher-js";

import { channelAuth } from "../src/auth.js";
import { createConversations, serverConversations } from "../src/conversations.js";
import type { Answer } from "../src/reducer.js";
import { chatPage } from "./component.js";
import { base, readConfig, tokenOf, type Config } from "./config.js";
import { confirmation, conversationList } from "./conversations.js";
import * as directives from "./directives.js";
import { paced } from "./pace.js";
import { keepShell } from "./shell.js";

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

/** By whether there is something to stop. */
const KEYS = { true: "Escape to stop", false: "Enter to send, Shift + Enter for a line" };

const SCRIPTED = "Scripted replies: set ANTHROPIC_API_KEY for real ones.";

/** What one request for approval has of its own: the note that is being written. */
const decision = () => ({
  note: "",
  isSending: (answer: Answer | undefined): boolean => answer?.state === "sending",
  problemOf: (answer: Answer | undefined): string => answer?.error ?? "",
});

type Token = ReturnType<typeof tokenOf>;

/** What a stock app writes: Pusher on the window, an Echo that knows the server and the user's token. */
function connect(key: string, token: Token): Echo<"reverb"> {
  (window as unknown as { Pusher: typeof Pusher }).Pusher = Pusher;
  const isSecure = location.protocol === "https:";
  return new Echo({
    broadcaster: "reverb",
    key,
    wsHost: location.hostname,
    wsPort: Number(location.port || 80),
    wssPort: Number(location.port || 443),
    wsPath: base,
    forceTLS: isSecure,
    // Over plain HTTP there is nobody to answer on `wss`.
    enabledTransports: isSecure ? ["ws", "wss"] : ["ws"],
    ...channelAuth({ baseUrl: base, token }),
  });
}

/** Who answers, below the input. */
function providerLine({ provider, model }: Config): string {
  if (provider === "scripted") return SCRIPTED;
  const name = provider === "anthropic" ? "Anthropic" : provider;
  return model ? `Replies by ${name}, ${model}` : `Replies by ${name}`;
}

function localStorageIfAny(): Storage | null {
  try {
    return localStorage;
  } catch {
    return null; // a browser that forbids storage throws on the mere access
  }
}

async function start(): Promise<void> {
  const user = new URLSearchParams(location.search).get("user") ?? "7";
  const token = tokenOf(user);
  const { config, chat } = await readConfig(token);
  const echo = connect(config.key, token);
  const server = { echo, userId: user, token, baseUrl: base };
  const list = chat.conversations ? createConversations(server) : null;
  const conversations = list ? serverConversations({ list }) : undefined;

  for (const [name, directive] of Object.entries(directives.all)) Alpine.directive(name, directive);
  Alpine.store("reader", { away: false, jump: () => undefined } satisfies directives.Reader);
  Alpine.store("words", {
    connection: CONNECTION,
    keys: KEYS,
    prompts: PROMPTS,
    provider: providerLine(config),
  });
  Alpine.data("decision", decision);
  Alpine.data("conversationList", () => conversationList(list));
  Alpine.data("confirmation", () => confirmation(list));
  Alpine.data("legatoChat", () =>
    chatPage({
      chat: {
        ...{ ...server, conversations, queue: true, pace: paced },
        maxMessage: chat.max_message_characters,
      },
      config: chat,
      storage: localStorageIfAny(),
      hasList: list !== null,
    }),
  );
  Alpine.start();
  // Not before Alpine has shown it; and on a phone the keyboard would cover half of the page unasked.
  if (matchMedia("(pointer: fine), (hover: hover)").matches) {
    await Alpine.nextTick(() => document.getElementById("draft")?.focus());
  }
  await keepShell();
}

start().catch((error: unknown) => {
  const place = document.getElementById("boot");
  if (!place) return;
  place.textContent = `The chat could not start: ${error instanceof Error ? error.message : String(error)}.`;
  place.hidden = false;
});
