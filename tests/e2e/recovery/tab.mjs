// A tab of a page that is as small as can be: the package on a stock Echo, and beside it a stock listener that
// writes down what it is told. Nothing here repairs anything.

import Echo from "laravel-echo";
import Pusher from "pusher-js";

import { channelAuth } from "legato-client/auth";
import { createChat } from "legato-client";
import { serverConversations } from "legato-client/conversations";
import { keepIn } from "legato-client/storage";

const query = new URLSearchParams(location.search);
const user = query.get("user");

const fetched = fetch(`/dev/token?sub=${user}`).then((response) => response.json());
const token = async () => (await fetched).token;

/** The longest text that a reply may have. */
const SCRIPT = Array.from({ length: 10_000 }, (_, index) => `w${index} `).join("");

/**
 * What the stock listener is told: `[at, kind, id, index, count, status]` of tokens and snapshots (a snapshot ends at
 * `index`), `[at, kind, id]` of ends, `[at, kind]` of subscriptions.
 */
const ledger = [];
/** Message id -> its text, as a listener has it that puts pieces where they belong. */
const texts = {};
const faults = [];

const ENDS = new Set(["completed", "failed", "cancelled"]);

const note = (kind, ...more) =>
  ledger.push([performance.timeOrigin + performance.now(), kind, ...more]);

/** Loaded before it is opened: on a busy machine that takes longer than a reply. */
if (query.has("waits")) await new Promise((resolve) => (window.join = resolve));

const echo = new Echo({
  broadcaster: "reverb",
  Pusher,
  key: "app-key",
  wsHost: location.hostname,
  wsPort: Number(location.port),
  forceTLS: false,
  enabledTransports: ["ws"],
  ...channelAuth({ token }),
});

const channel = echo.private(`ai-chat.${user}`);
channel
  .subscribed(() => note("subscribed"))
  .listen(".token.received", ({ messageId, token, tokenIndex, tokenCount = 1 }) => {
    note("token", messageId, tokenIndex, tokenCount);
    texts[messageId] = (texts[messageId] ?? "") + token;
  })
  .listen(".stream.snapshot", ({ messageId, text, nextIndex, status }) => {
    note("snapshot", messageId, nextIndex, 0, status);
    texts[messageId] = text;
  });
for (const end of ENDS) {
  channel.listen(`.stream.${end}`, ({ messageId }) => note(end, messageId));
}

const chat = createChat({
  ...{ echo, userId: user, token, keep: keepIn(localStorage) },
  conversations: query.has("plain") ? undefined : serverConversations(),
});

/** Key of a reply -> the longest text that was shown. */
const shown = new Map();

/** The texts of the script tell their place, so a gap, a repetition or a step back shows in any moment. */
function check() {
  for (const turn of chat.getSnapshot().turns) {
    if (turn.role !== "assistant") continue;
    const before = shown.get(turn.key) ?? "";
    if (!SCRIPT.startsWith(turn.text)) faults.push(`shown: …${turn.text.slice(-60)}`);
    if (turn.text.length < before.length)
      faults.push(`shorter: ${before.length}, ${turn.text.length}`);
    shown.set(turn.key, turn.text);
  }
}
chat.subscribe(check);

window.tab = {
  chat,
  echo,
  ledger,
  texts,
  faults,
  replies: () =>
    chat
      .getSnapshot()
      .turns.filter(({ role }) => role === "assistant")
      .map(({ messageId, status, text }) => ({ messageId, status, text })),
  /** Whether the subscription that the listener has now was told of the reply's end, or never of the reply. */
  isSettled(id) {
    const begin = ledger.findLastIndex(([, kind]) => kind === "subscribed");
    const told = ledger.slice(begin + 1).filter(([, , of]) => of === id);
    return (
      told.length === 0 ||
      told.some(([, kind, , , , status]) => ENDS.has(kind) || status === "complete")
    );
  },
  isLive: () => chat.getSnapshot().connection === "live",
};
