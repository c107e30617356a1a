// The states of the chat page, one after the other: looked at by a machine in states.test.mjs, and
// made pictures of by screenshot.mjs.

import { ChatPage } from "./browser.mjs";
import { newUser } from "./legato.mjs";
import { answerFor, everything, Recorded } from "./recorded.mjs";

export const SCREENS = {
  desktop: { viewport: { width: 1280, height: 800 } },
  phone: {
    viewport: { width: 390, height: 844 },
    deviceScaleFactor: 2,
    isMobile: true,
    hasTouch: true,
  },
};

const QUESTION = "How do I keep tokens in order when they come over a WebSocket?";

const ANSWER = [
  "Number each token, and let the receiver **place** it rather than append it.\n\n",
  "### What you need\n\n",
  "1. an index that starts at `0` and has no gaps,\n2. a buffer for what came too early,\n",
  "3. a way to read what is missing.\n\n",
  "```python\nasync def place(token: str, index: int) -> None:\n",
  '    """Append what is next, and hold the rest."""\n    held[index] = token\n',
  "    while (text := held.pop(state.next, None)) is not None:\n",
  "        state.text += text  # in order, once each\n        state.next += 1\n```\n\n",
  "| what arrives | what to do |\n|---|---|\n| the next index | append it |\n",
  "| a later one | hold it |\n| an earlier one | ignore it |\n\n",
  "> A snapshot replaces all of this after a reconnect.\n\n",
  "See [the protocol](https://example.org/protocol) for the rest.",
];

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

const MODEL = "claude-sonnet-4-6";

const OTHERS = [
  "Packing list for three days in the mountains",
  "Why is the sky dark at night?",
  "Review of the migration to one queue per region, with a title that does not fit",
  "Names for a cat",
];

const hoursAgo = (hours) => new Date(Date.now() - hours * 3_600_000).toISOString();

/** A stored conversation in which a reply and a message have other versions. */
function stored(id) {
  const turn = (message_id, role, parent_id, content, hours) => ({
    ...{ message_id, role, parent_id, content, status: "complete", created_at: hoursAgo(hours) },
    ...(role === "assistant" && { model: MODEL, usage: { input: 40, output: 60, cacheRead: 0, cacheWrite: 0 } }),
  });
  const why = "Because the universe has a beginning, and the light of most stars has not reached us yet.";
  const turns = [
    turn("m-4", "assistant", "m-4", "Olbers asked it in 1823, and Kepler long before him.", 2),
    turn("m-4", "user", "m-2", "Who was the first to wonder?", 2.1),
    turn("m-3", "user", "m-2", "Who was the first to ask?", 2.2),
    turn("m-2", "assistant", "m-1", why, 2.3),
    turn("m-1", "assistant", "m-1", "Good question!", 2.4),
    turn("m-1", "user", "", OTHERS[1], 2.5),
  ];
  const times = { created_at: hoursAgo(3), updated_at: hoursAgo(2) };
  return { id, title: OTHERS[1], ...times, turns, next: null };
}

/** A list that is always the same, in place of the server's. */
async function fillList(context) {
  const conversations = OTHERS.map((title, index) => {
    const updated_at = hoursAgo([0.1, 2, 30, 200][index]);
    return { id: `c-${index}`, title, created_at: updated_at, updated_at };
  });
  await context.route(/\/api\/conversations\?/, (route) =>
    route.fulfill({ json: { conversations, next: null } }),
  );
  await context.route(/\/api\/conversations\/c-1\b/, (route) =>
    route.fulfill({ json: stored("c-1") }),
  );
}

/** What this server does not allow by itself is allowed here. */
async function prepare(context) {
  await fillList(context);
  await context.route("**/api/chat/config", async (route) => {
    const config = await (await route.fetch()).json();
    const media_types = ["image/png", "application/pdf"];
    await route.fulfill({
      json: {
        ...config,
        allow: ["model", "attachments"],
        models: ["claude-sonnet-4-6", "claude-haiku-4-5"],
        attachments: { max: 5, max_bytes: 524_288, media_types },
        prices: {
          currency: "USD",
          models: { "claude-*": { input: 3, output: 15, cacheRead: 0.3, cacheWrite: 3.75 } },
        },
      },
    });
  });
}

/** Go through all states of a page, and call `visit(name, chat)` in each. */
export async function walk(browser, options, visit) {
  const user = newUser();
  const chat = await ChatPage.open(browser, { user, reducedMotion: "reduce", ...options }, prepare);
  const { page } = chat;
  const begin = async (text) => {
    const reply = new Recorded(user);
    await answerFor(chat, reply);
    await chat.say(text);
    return reply;
  };
  const menu = page.getByTestId("menu");
  const isDrawer = await menu.isVisible();
  const openList = async () => {
    if (isDrawer) await menu.click();
  };
  await chat.conversations.nth(3).waitFor({ state: "attached" });
  await visit("empty", chat);

  const answer = await begin(QUESTION);
  await page.getByTestId("thinking").filter({ visible: true }).waitFor();
  await answer.started(MODEL);
  await answer.text(...ANSWER.slice(0, 7));
  await page.locator(".hljs-comment, .hljs-string").first().waitFor();
  await visit("streaming", chat);
  await answer.text(...ANSWER.slice(7));
  await answer.completed();
  await chat.hasStatus("complete");
  await visit("reply", chat);

  await page.getByTestId("files").setInputFiles([
    { name: "score.png", mimeType: "image/png", buffer: Buffer.from(PNG, "base64") },
    { name: "a long name of a document.pdf", mimeType: "application/pdf", buffer: Buffer.alloc(90_000) },
    { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("x") },
  ]);
  await chat.page.getByTestId("excess").filter({ visible: true }).waitFor();
  await chat.draft.fill("And what does this score say?\nIn a few words.");
  await visit("attachments", chat);
  for (const name of ["score.png", "a long name of a document.pdf"]) {
    await page.getByRole("button", { name: `Remove ${name}` }).click();
  }

  const declined = await begin("Something that it will not do");
  await declined.failed("refused", "refusal");
  await chat.hasStatus("failed", 2);
  const busy = await begin("One more, please");
  await busy.failed("overloaded", "overloaded");
  await chat.hasStatus("failed", 3);
  const broken = await begin("And now?");
  await broken.failed("Response unavailable. Please try again.", "");
  await chat.hasStatus("failed", 4);
  await visit("failed", chat);

  await chat.questions.last().hover();
  await chat.questions.last().getByTestId("edit").click();
  await visit("editing", chat);
  await page.keyboard.press("Escape");

  const agent = await begin("What is the weather in Oslo? Then write to Ann.");
  await everything(agent);
  await page.getByRole("button", { name: "Approve send_mail" }).waitFor();
  const folded = page.locator("details:not([open]) > summary");
  while (await folded.count()) await folded.first().click();
  await visit("agent", chat);
  await chat.stopButton.click();
  await chat.hasStatus("cancelled", 5);

  await openList();
  await chat.conversations.nth(2).hover();
  await visit("list", chat);
  await chat.conversations.filter({ hasText: OTHERS[1] }).getByRole("link").click();
  await chat.questions.nth(1).waitFor();
  await chat.questions.nth(1).hover();
  await visit("branches", chat);
  await openList();
  await chat.conversations.filter({ hasText: OTHERS[1] }).hover();
  await chat.conversations.filter({ hasText: OTHERS[1] }).getByTestId("rename").click();
  await visit("rename", chat);
  await page.keyboard.press("Escape");
  await chat.conversations.filter({ hasText: OTHERS[1] }).hover();
  await chat.conversations.filter({ hasText: OTHERS[1] }).getByTestId("delete").click();
  await page.getByTestId("confirm").waitFor();
  await visit("delete", chat);
  await page.keyboard.press("Escape");
  if (isDrawer) await page.keyboard.press("Escape");

  await page.context().setOffline(true);
  await page.getByTestId("offline").waitFor();
  await chat.say("This one waits for the network");
  await page.getByTestId("unsent").waitFor();
  await visit("offline", chat);
  await page.context().setOffline(false);
  await chat.close();
}
