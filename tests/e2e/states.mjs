// The states of the chat page, one after the other: looked at by a machine in states.test.mjs, and
// made pictures of by screenshot.mjs.

import { ChatPage } from "./browser.mjs";
import { newUser } from "./legato.mjs";
import { answerFor, everything, publish, Recorded } from "./recorded.mjs";
import { BRANCHED, MODEL, Stage, UNREADABLE } from "./stage.mjs";

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

const FILES = [
  { name: "score.png", mimeType: "image/png", buffer: Buffer.from(PNG, "base64") },
  { name: "a long name of a document.pdf", mimeType: "application/pdf", buffer: Buffer.alloc(90_000) },
  { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("x") },
];

/** One walk through the states on one screen. */
class Walk {
  constructor(chat, user, stage, isDrawer) {
    Object.assign(this, { chat, user, stage, isDrawer, page: chat.page });
  }

  /** Say something, to be answered by the reply that this gives. */
  async begin(text) {
    const reply = new Recorded(this.user);
    await answerFor(this.chat, reply);
    await this.chat.say(text);
    return reply;
  }

  /** Begin a conversation, so that there is no more to be looked at than this state has. */
  async startNew() {
    await this.page.getByTestId(this.isDrawer ? "new-chat" : "side-new").click();
    await this.page.getByTestId("empty").waitFor();
  }

  /** Where the list is a drawer, open it. */
  async openList() {
    if (this.isDrawer) await this.page.getByTestId("menu").click();
  }

  async closeList() {
    if (this.isDrawer) await this.page.getByTestId("close-drawer").click();
  }

  conversation(title) {
    return this.chat.conversations.filter({ hasText: title });
  }

  async search(text) {
    await this.page.getByTestId("search").fill(text);
  }

  /** Open a conversation of the list. */
  async choose(title) {
    await this.openList();
    await this.conversation(title).getByRole("link").click();
  }

  /** Press a button of an item in the list, which is there while the pointer or the focus is. */
  async act(title, testId) {
    await this.conversation(title).hover();
    await this.conversation(title).getByTestId(testId).click();
  }

  shows(testId) {
    return this.page.getByTestId(testId).filter({ visible: true }).waitFor();
  }
}

/** The first visit, and the list once there are conversations. */
async function beginning(walk, visit) {
  const { chat, page, stage } = walk;
  await walk.openList();
  await walk.shows("none");
  await visit("first-visit", chat);
  stage.isFilled = true;
  await walk.search("night");
  await chat.conversations.waitFor();
  await visit("search", chat);
  await walk.search("zebra");
  await page.getByText("Nothing found.").waitFor();
  await visit("nothing-found", chat);
  await walk.search("");
  await chat.conversations.nth(3).waitFor({ state: "attached" });
  await walk.closeList();
  await visit("empty", chat);
}

async function replying(walk, visit) {
  const { chat, page } = walk;
  const answer = await walk.begin(QUESTION);
  await walk.shows("thinking");
  await visit("thinking", chat);
  await answer.started(MODEL);
  await answer.text(...ANSWER.slice(0, 7));
  await page.locator(".hljs-comment, .hljs-string").first().waitFor();
  await visit("streaming", chat);
  if (walk.isDrawer) {
    await walk.openList();
    await visit("drawer", chat);
    await walk.closeList();
  }
  await answer.text(...ANSWER.slice(7));
  await answer.completed();
  await chat.hasStatus("complete");
  await visit("reply", chat);
}

async function attaching(walk, visit) {
  const { chat, page } = walk;
  await walk.startNew();
  await page.getByTestId("files").setInputFiles(FILES);
  await walk.shows("excess");
  await chat.draft.fill("And what does this score say?\nIn a few words.");
  await visit("attachments", chat);
  for (const { name } of FILES.slice(0, 2))
    await page.getByRole("button", { name: `Remove ${name}` }).click();
}

/** What may become of a message beside a reply; and the message that is changed. */
async function failing(walk, visit) {
  const { chat, page } = walk;
  const stopped = await walk.begin("Tell me about the sea, at length");
  await stopped.text("The sea ", "covers ", "most ", "of ", "the ");
  await chat.shows("The sea covers");
  await chat.stopButton.click();
  await chat.hasStatus("cancelled");
  await visit("stopped", chat);

  await walk.startNew();
  await (await walk.begin("Something that it will not do")).failed("refused", "refusal");
  await chat.hasStatus("failed");
  await visit("refused", chat);
  await walk.startNew();
  await (await walk.begin("One more, please")).failed("overloaded", "overloaded");
  await chat.hasStatus("failed");
  await visit("overloaded", chat);
  const broken = await walk.begin("And now?");
  await broken.failed("Response unavailable. Please try again.", "");
  await chat.hasStatus("failed", 2);
  await visit("failed", chat);

  await chat.questions.last().hover();
  await chat.questions.last().getByTestId("edit").click();
  await visit("editing", chat);
  await page.keyboard.press("Escape");
}

/** Reasoning, tools, sources, and approvals: awaited, given, refused, and too late. */
async function approving(walk, visit) {
  const { chat, page } = walk;
  await walk.startNew();
  const agent = await walk.begin("What is the weather in Oslo? Then write to Ann.");
  await everything(agent);
  await page.getByRole("button", { name: "Approve send_mail" }).waitFor();
  const folded = page.locator("details:not([open]) > summary");
  while (await folded.count()) await folded.first().click();
  await page.getByRole("button", { name: "Approve send_mail" }).scrollIntoViewIfNeeded();
  await visit("agent", chat);

  await page.getByRole("button", { name: "Approve send_mail" }).click();
  await page.getByText("Approved, running", { exact: true }).waitFor();
  await agent.decided("c3", true, { note: "Go ahead." });
  await agent.finished("c3", "send_mail", { ok: true, output: "sent" });
  await agent.asked("c4", "delete_draft", { folder: "Drafts" });
  await page.getByRole("button", { name: "Deny delete_draft" }).click();
  await page.getByText("Denied", { exact: true }).waitFor();
  await agent.decided("c4", false, { note: "I still need it." });
  await agent.asked("c5", "book_umbrella", { city: "Oslo" });
  await agent.decided("c5", false, { expired: true });
  await agent.text("The mail is sent; the draft stays.");
  await agent.completed();
  await chat.hasStatus("complete");
  await visit("decided", chat);
}

/** What there is to a stored conversation, and to its item in the list. */
async function stored(walk, visit) {
  const { chat, page } = walk;
  await walk.choose(BRANCHED);
  await chat.questions.nth(1).waitFor();
  await chat.questions.nth(1).hover();
  await visit("branches", chat);
  await walk.openList();
  await walk.conversation(UNREADABLE).hover();
  await visit("list", chat);
  await walk.act(BRANCHED, "rename");
  await visit("rename", chat);
  await page.keyboard.press("Escape");
  await walk.act(BRANCHED, "delete");
  await walk.shows("confirm");
  await visit("delete", chat);
  await page.keyboard.press("Escape");
  await walk.closeList();
}

/** Conversations that are not there, or not yet; no network. */
async function missing(walk, visit) {
  const { chat, page, stage, user } = walk;
  const conversationId = new URL(page.url()).hash.slice(1);
  const updatedAt = new Date().toISOString();
  await publish(user, "conversation.changed", { conversationId, updatedAt, deleted: true });
  await page.getByTestId("gone").getByText("This conversation was deleted.").waitFor();
  await visit("gone", chat);
  await walk.choose(UNREADABLE);
  await walk.shows("loading");
  await visit("loading", chat);
  stage.release();
  await walk.shows("gone");
  await visit("unreadable", chat);

  await walk.startNew();
  await page.context().setOffline(true);
  await page.getByTestId("offline").waitFor();
  await chat.say("This one waits for the network");
  await walk.shows("unsent");
  await visit("offline", chat);
  await page.context().setOffline(false);
}

/** The page of a user whom the server refuses, and one that does not even start. */
async function refusing(walk, visit) {
  const { chat, page } = walk;
  await walk.startNew();
  const refused = { status: 403, json: { message: "No." } };
  await page.context().route("**/broadcasting/auth", (route) => route.fulfill(refused));
  await page.reload();
  await page.locator('[data-testid="connection"][data-state="refused"]').waitFor();
  await visit("not-allowed", chat);
  await page.context().route("**/dev/config", (route) => route.fulfill(refused));
  await page.reload();
  await walk.shows("boot-error");
  await visit("not-started", chat);
}

/** Go through all states of a page, and call `visit(name, chat)` in each. */
export async function walk(browser, options, visit) {
  const [user, stage] = [newUser(), new Stage()];
  const chat = await ChatPage.open(
    browser,
    { user, reducedMotion: "reduce", ...options },
    (context) => stage.prepare(context),
  );
  const isDrawer = await chat.page.getByTestId("menu").isVisible();
  const taken = new Walk(chat, user, stage, isDrawer);
  for (const part of [beginning, replying, attaching, failing, approving, stored, missing, refusing])
    await part(taken, visit);
  await chat.close();
}
