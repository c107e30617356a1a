// The real chat page in a real browser: what a person does and sees.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { ChatPage, launch } from "./browser.mjs";
import { becomes, LEGATO_URL, newUser, until, words } from "./legato.mjs";
import { answerFor, Recorded } from "./recorded.mjs";
import { SCREENS } from "./states.mjs";

const LIMIT = { timeout: 180_000 };

let browser;
let chat;

before(async () => {
  browser = await launch();
  chat = await ChatPage.open(browser, { permissions: ["clipboard-read", "clipboard-write"] });
});

after(() => browser.close());

beforeEach(() => chat.reopen());

const isFocused = (locator) =>
  until("the focus", () => locator.evaluate((el) => el === document.activeElement));

test("a message is answered token by token, in order, until Stop ends it for good", LIMIT, async () => {
  // The page notes each text that a person could have seen.
  await chat.page.evaluate(() => {
    window.seen = [];
    new MutationObserver(() => {
      const text = document.querySelector('[data-role="assistant"] [data-testid="text"]');
      if (text && window.seen.at(-1) !== text.textContent) window.seen.push(text.textContent);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await chat.say("#script tokens=2000 rate=20");
  await becomes(() => chat.draft.inputValue(), "");
  await chat.hasStatus("streaming");
  await until("ten steps", () => chat.page.evaluate(() => window.seen.length >= 10));
  await chat.stopButton.click();
  await chat.hasStatus("cancelled");
  await isFocused(chat.draft);
  const stopped = await chat.text();
  await chat.replies.first().getByText("Stopped").waitFor();
  // The next reply shows that the server is free again, and the first has not moved meanwhile.
  await chat.say("#script tokens=60 rate=200");
  await chat.hasStatus("complete", 2);
  assert.equal(await chat.text(0), stopped);
  assert.equal(await chat.text(1), words(0, 60).join(""));
  const seen = await chat.page.evaluate(() => window.seen);
  for (const [index, text] of seen.entries()) {
    const shorter = seen[index - 1] ?? "";
    assert.ok(text.startsWith(shorter), `${text} does not continue ${shorter}`);
  }
  assert.equal(seen.at(-1), stopped);
  assert.ok(words(0, 2000).join("").startsWith(stopped), stopped);
  const last = chat.replies.nth(1);
  await becomes(() => last.getByTestId("count").textContent(), "60 tokens");
  assert.match(await last.getByTestId("elapsed").textContent(), /^\d+\.\d s$/);
  assert.deepEqual(chat.faults, []);
});

test("a failure is shown, and Retry asks again in the same place", LIMIT, async () => {
  const requests = [];
  const note = (request) => request.url().endsWith("/api/chat/send") && requests.push(request);
  chat.page.on("request", note);
  await chat.say("#script tokens=20 rate=50 fail=overloaded@5/always");
  await chat.hasStatus("failed");
  const failure = chat.replies.first().getByTestId("failure");
  await failure.filter({ hasText: /The service is busy\. Try again in a moment\./ }).waitFor();
  const again = chat.page.locator('[data-role="assistant"]:not([data-status="failed"])').waitFor();
  await chat.retryButton.click();
  await again;
  await until("a second request", () => requests.length === 2);
  chat.page.off("request", note);
  assert.equal(await chat.replies.count(), 1);
  assert.equal(await chat.questions.count(), 1);
  assert.deepEqual(chat.faults, []);
});

test("two messages one after the other, by keyboard and by button; the page says who answers", LIMIT, async () => {
  await chat.say("#script tokens=10 rate=200");
  await chat.hasStatus("complete", 1);
  await chat.draft.fill("#script tokens=12 rate=200");
  await chat.sendButton.click();
  await chat.hasStatus("complete", 2);
  assert.equal(await chat.text(0), words(0, 10).join(""));
  assert.equal(await chat.text(1), words(0, 12).join(""));
  assert.match(await chat.page.getByTestId("provider").textContent(), /ANTHROPIC_API_KEY/);
  assert.deepEqual(chat.faults, []);
});

test("a refresh while a reply streams goes on with it", LIMIT, async () => {
  await chat.say("#script tokens=2000 rate=20");
  await chat.shows("w10 ");
  const before = await chat.text();
  await chat.reload();
  const question = chat.questions.first().getByTestId("text");
  await becomes(() => question.textContent(), "#script tokens=2000 rate=20");
  await chat.hasStatus("streaming");
  await until("more", async () => (await chat.text()).length > before.length + 20);
  await chat.stopButton.click();
  await chat.hasStatus("cancelled");
  const text = await chat.text();
  assert.ok(words(0, 2000).join("").startsWith(text), text);
  assert.deepEqual(chat.faults, []);
});

test("a lost connection closes the gate, and the reply is whole in the end", LIMIT, async () => {
  const sockets = [];
  let release;
  const seen = new Promise((resolve) => (release = resolve));
  const lost = await ChatPage.open(browser, {}, (context) =>
    context.routeWebSocket(/\/app\//, async (socket) => {
      if (sockets.push(socket) > 1) await seen;
      socket.connectToServer();
    }),
  );
  await lost.say("#script tokens=60 rate=30");
  await lost.shows("w3 ");
  await sockets[0].close({ code: 4200 });
  await lost.page.locator('[data-testid="connection"][data-state="connecting"]').waitFor();
  await until("another connection", () => sockets.length === 2);
  release();
  await lost.isConnected();
  await lost.hasStatus("complete");
  assert.equal(await lost.text(), words(0, 60).join(""));
  await lost.isConnected();
  await lost.close();
});

test("Shift+Enter is a new line; text is text, never HTML", LIMIT, async () => {
  await chat.draft.fill("<b>bold</b>");
  await chat.draft.press("Shift+Enter");
  await chat.draft.pressSequentially("#script tokens=1");
  await chat.draft.press("Enter");
  const question = chat.questions.first().getByTestId("text");
  await becomes(() => question.textContent(), "<b>bold</b>\n#script tokens=1");
  assert.equal(await question.locator("b").count(), 0);
  await chat.hasStatus("complete");
  assert.deepEqual(chat.faults, []);
});

test("half a character does not end the conversation", LIMIT, async () => {
  await chat.draft.evaluate((field) => {
    field.value = "\ude00 nice\n#script tokens=1";
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
  await chat.draft.press("Enter");
  await chat.hasStatus("complete");
  const question = chat.questions.first().getByTestId("text");
  assert.equal(await question.textContent(), "\ufffd nice\n#script tokens=1");
  await chat.say("and again\n#script tokens=1");
  await chat.hasStatus("complete", 2);
  assert.deepEqual(chat.faults, []);
});

test("a pasted page is sent whole, and a text that is too long is not sent at all", LIMIT, async () => {
  const excess = chat.page.getByTestId("excess");
  const paste = async (text) => {
    await chat.draft.fill("");
    await chat.draft.focus();
    await chat.page.keyboard.insertText(text);
  };
  await paste("x".repeat(100_001));
  const tooLong = "The message is too long: 100,001 of at most 100,000 characters.";
  await becomes(() => excess.textContent(), tooLong);
  await becomes(() => chat.sendButton.isDisabled(), true);
  await chat.draft.press("Enter");
  assert.equal((await chat.draft.inputValue()).length, 100_001);
  await becomes(() => chat.page.getByTestId("announcement").textContent(), tooLong);
  assert.equal(await chat.questions.count(), 0);
  const page = `#script tokens=5 rate=100 ${"line ".repeat(4_000)}end`;
  await paste(page);
  await excess.waitFor({ state: "hidden" });
  await chat.draft.press("Enter");
  await chat.hasStatus("complete");
  assert.equal(await chat.questions.first().getByTestId("text").textContent(), page);
  const request = chat.page.waitForRequest((sent) => sent.url().endsWith("/api/chat/send"));
  await chat.say("#script tokens=1 rate=100");
  const { message, parent_id } = (await request).postDataJSON();
  assert.equal(message, "#script tokens=1 rate=100");
  assert.ok(parent_id, "it follows the first one, which the server has");
  await chat.hasStatus("complete", 2);
  assert.deepEqual(chat.faults, []);
});

test("New chat leaves the old one running, and the list leads back to it", LIMIT, async () => {
  await chat.say("long\n#script tokens=60 rate=30");
  await chat.hasStatus("streaming");
  const left = await chat.text();
  await chat.page.getByRole("button", { name: "New chat" }).click();
  await chat.page.getByTestId("empty").filter({ visible: true }).waitFor();
  await chat.say("second\n#script tokens=3 rate=100");
  await chat.hasStatus("complete");
  assert.equal(await chat.text(), words(0, 3).join(""));
  await chat.conversations.filter({ hasText: "long" }).getByRole("link").click();
  await chat.shows("w10 ");
  await chat.reload();
  await chat.hasStatus("complete");
  assert.equal(await chat.text(), words(0, 60).join(""));
  assert.ok(left.length < words(0, 60).join("").length, "it was left before its end");
  assert.deepEqual(chat.faults, []);
});

test("edit and regenerate keep what was there; a second tab on a phone sees it all", LIMIT, async () => {
  const first = `first\n#script tokens=3 rate=100\n${"x".repeat(200)}`;
  await chat.say(first);
  await chat.hasStatus("complete");
  const { user } = chat;
  const { hash } = new URL(chat.page.url());
  const viewport = { width: 375, height: 667 };
  const phone = await ChatPage.open(browser, { user, hash, ...SCREENS.phone, viewport });
  await phone.hasStatus("complete");
  const width = await phone.page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= viewport.width, `the page is ${width} pixels wide`);
  assert.ok(await phone.draft.isVisible());

  await chat.questions.first().hover();
  await chat.questions.first().getByTestId("edit").click();
  await chat.page.getByTestId("edited").fill("other\n#script tokens=30 rate=20");
  // Live, question and reply; the page looks for it in each of its frames.
  const live = [
    chat.hasStatus("streaming"),
    phone.hasStatus("streaming"),
    phone.questions.first().getByText("other").waitFor(),
  ];
  await chat.page.getByTestId("edited").press("Enter");
  await Promise.all(live);
  await chat.hasStatus("complete");
  await phone.hasStatus("complete");
  assert.equal(await phone.text(), words(0, 30).join(""));
  await chat.replies.first().getByTestId("regenerate").click();
  const branches = (page) => page.getByTestId("branch").allTextContents();
  await becomes(() => branches(chat.page), ["2/2", "2/2"]);
  await chat.hasStatus("complete");
  await becomes(() => branches(phone.page), ["2/2", "2/2"]);
  await chat.questions.first().getByTestId("previous").click();
  await becomes(() => chat.questions.first().getByTestId("text").textContent(), first);
  assert.equal(await chat.text(), words(0, 3).join(""));
  await chat.reload();
  await becomes(() => branches(chat.page), ["1/2"]);
  assert.deepEqual([...chat.faults, ...phone.faults], []);
  await phone.close();
});

test("the list is searched, renamed and shortened, in all tabs", LIMIT, async () => {
  for (const text of ["alpha", "beta"]) {
    await chat.page.getByTestId("side-new").click();
    await chat.say(`${text}\n#script tokens=2 rate=100`);
    await chat.conversations.filter({ hasText: text }).waitFor();
    await chat.hasStatus("complete");
  }
  const other = await ChatPage.open(browser, { user: chat.user });
  await becomes(() => other.conversations.count(), 2);
  const { page } = chat;
  await page.getByTestId("search").fill("ALPHA");
  await becomes(() => chat.conversations.count(), 1);
  await page.getByTestId("search").fill("gamma");
  await page.getByTestId("none").getByText("Nothing found.").waitFor();
  await page.getByTestId("search").fill("");
  await becomes(() => chat.conversations.count(), 2);

  const alpha = chat.conversations.filter({ hasText: "alpha" });
  await alpha.hover();
  await alpha.getByTestId("rename").click();
  await page.getByTestId("name").fill("The first one");
  await page.getByTestId("name").press("Enter");
  for (const tab of [chat, other]) await tab.conversations.filter({ hasText: "The first one" }).waitFor();

  const beta = chat.conversations.filter({ hasText: "beta" });
  await beta.hover();
  await beta.getByTestId("delete").click();
  await page.getByTestId("keep").click();
  assert.equal(await chat.conversations.count(), 2);
  await beta.hover();
  await beta.getByTestId("delete").click();
  await page.getByTestId("confirm-delete").click();
  for (const tab of [chat, other]) await becomes(() => tab.conversations.count(), 1);
  await page.getByTestId("gone").getByText("This conversation was deleted.").waitFor();
  await chat.say("delta\n#script tokens=2 rate=100"); // begins another one
  await chat.hasStatus("complete");
  assert.deepEqual([...chat.faults, ...other.faults], []);
  await other.close();
});

test("what a screen reader is told does not change with each token", LIMIT, async () => {
  const reply = new Recorded(chat.user);
  await answerFor(chat, reply);
  await chat.say("Tell me");
  const region = chat.page.getByTestId("announcement");
  await becomes(() => region.textContent(), "Waiting for the reply.");
  await region.evaluate((region) => {
    window.said = [];
    new MutationObserver(() => window.said.push(region.textContent)).observe(region, {
      subtree: true,
      childList: true,
      characterData: true,
    });
  });
  const hears = (...texts) => becomes(() => chat.page.evaluate(() => window.said), texts);
  await reply.text("w0 ");
  await hears("The reply is being written.");
  await reply.text(...words(1, 20));
  await chat.shows("w19 ");
  await reply.completed();
  await hears("The reply is being written.", "The reply is complete.");
  // The text itself is said in pieces, as far as it is written.
  const pieces = () => chat.page.getByTestId("spoken").locator("p").allTextContents();
  await becomes(async () => (await pieces()).join(" "), words(0, 20).join("").trim());
});

test("the reader who scrolls up is left alone, and finds the way back", LIMIT, async () => {
  const scroller = chat.page.getByRole("main");
  const place = () =>
    scroller.evaluate((el) => ({
      top: el.scrollTop,
      height: el.scrollHeight,
      left: el.scrollHeight - el.clientHeight - el.scrollTop,
    }));
  const isAtEnd = (height) =>
    until("the end", async () => {
      const now = await place();
      return now.height > height && now.left < 60 && now;
    });
  const reply = new Recorded(chat.user);
  await answerFor(chat, reply);
  await chat.say("Show me");
  await reply.text("A line of the reply.\n\n".repeat(150));
  const end = await isAtEnd(3_000);
  // Not hover(): it waits for a moment in which the text under the pointer stands still.
  const { x, y, width, height } = await scroller.boundingBox();
  await chat.page.mouse.move(x + width / 2, y + height / 2);
  await chat.page.mouse.wheel(0, -1_000);
  await until("the way up", async () => Math.abs((await place()).top - end.top + 1_000) < 2);
  const latest = chat.page.getByRole("button", { name: "Latest" });
  await latest.waitFor();
  const before = await place();
  await reply.text("And another line.\n\n".repeat(20));
  await until("growth", async () => (await place()).height > before.height);
  assert.equal((await place()).top, before.top);
  await latest.click();
  const longer = await isAtEnd(before.height);
  await reply.text("And another line.\n\n".repeat(20));
  await isAtEnd(longer.height); // it is followed again
  await reply.completed();
  await chat.hasStatus("complete");
});

test("Markdown grows with the reply: code to copy, tables, links, and no HTML", LIMIT, async () => {
  const reply = new Recorded(chat.user);
  const asked = [];
  const note = (request) => asked.push(request.url());
  chat.page.on("request", note);
  await answerFor(chat, reply);
  await chat.say("Show me");
  const copied = () => chat.page.evaluate(() => navigator.clipboard.readText());
  const shown = chat.replies.getByTestId("text");
  await reply.text("Some **bo");
  await shown.locator("strong").filter({ hasText: "bo" }).waitFor();
  await reply.text("ld** <img src=x onerror=alert(1)>\n\n", "```js\nconst a = 1;\n");
  const button = shown.getByRole("button", { name: "Copy code" });
  await button.click(); // while the code is being written
  await shown.getByRole("button", { name: "Code copied" }).waitFor();
  assert.equal(await copied(), "const a = 1;");
  await reply.text("```\n\n| a | b |\n|---|---|\n", "| 1 | 2 |\n\n");
  await reply.text("![cat](https://foreign.test/c.png) [bad](javascript:alert(1)) [good](https://a.test)");
  await reply.completed();
  await chat.hasStatus("complete");
  await shown.locator(".hljs-keyword").waitFor();
  assert.deepEqual(await shown.locator("td").allTextContents(), ["1", "2"]);
  assert.match(await shown.textContent(), /<img src=x onerror=alert\(1\)>/);
  assert.equal(await shown.locator("img, script").count(), 0);
  const links = await shown.locator("a").evaluateAll((all) => all.map((a) => [a.href, a.rel]));
  assert.deepEqual(links, [
    ["https://foreign.test/c.png", "noopener noreferrer"],
    ["https://a.test/", "noopener noreferrer"],
  ]);
  const own = new URL(LEGATO_URL).host;
  assert.deepEqual(asked.filter((url) => new URL(url).host !== own), []);
  await chat.replies.getByTestId("copy").click();
  await until("the Markdown", async () => (await copied()).startsWith("Some **bold** <img"));
  assert.deepEqual(chat.faults, []);
  chat.page.off("request", note);
});

test("the field has the focus, Escape stops, and a draft survives a reload", LIMIT, async () => {
  await isFocused(chat.draft);
  await chat.page.keyboard.type("#script tokens=2000 rate=20");
  await chat.page.keyboard.press("Enter");
  await chat.hasStatus("streaming");
  const search = chat.page.getByTestId("search");
  await search.fill("some");
  await search.press("Escape"); // empties it, and stops nothing
  await becomes(() => search.inputValue(), "");
  await chat.hasStatus("streaming");
  await chat.draft.focus();
  await chat.page.keyboard.type("half a thou");
  await chat.page.keyboard.press("Escape");
  await chat.hasStatus("cancelled");
  await chat.reload();
  await becomes(() => chat.draft.inputValue(), "half a thou");
  assert.deepEqual(chat.faults, []);
});

test("without a network the page opens, and what is sent then goes out later", LIMIT, async () => {
  const page = await ChatPage.open(browser, { serviceWorkers: "allow" });
  await page.page.evaluate(() => navigator.serviceWorker.ready);
  await page.say("#script tokens=5 rate=100");
  await page.hasStatus("complete");
  const context = page.page.context();
  const devTools = await context.newCDPSession(page.page);
  const { installabilityErrors } = await devTools.send("Page.getInstallabilityErrors");
  assert.deepEqual(installabilityErrors, []);
  await context.setOffline(true);
  const state = (name) => page.page.locator(`[data-testid="connection"][data-state="${name}"]`);
  await state("offline").waitFor({ timeout: 15_000 }); // sooner than a silent connection is noticed
  await page.say("#script tokens=6 rate=100");
  await page.page.getByTestId("unsent").waitFor();
  await page.page.reload();
  await page.page.getByTestId("offline").waitFor();
  await page.page.getByTestId("unsent").waitFor();
  await context.setOffline(false);
  await page.hasStatus("complete", 2);
  assert.equal(await page.text(0), words(0, 5).join(""));
  assert.equal(await page.text(1), words(0, 6).join(""));
  const kept = await until("the page", async () => {
    const paths = await page.page.evaluate(async () => {
      const caches = await window.caches.keys();
      const requests = await Promise.all(caches.map(async (name) => (await window.caches.open(name)).keys()));
      return requests.flat().map(({ url }) => new URL(url).pathname);
    });
    return paths.includes("/") && paths;
  });
  assert.deepEqual(kept.filter((path) => /^\/(api|dev|broadcasting)/.test(path)), []);
  await page.close();
});

test("files and the chosen model go along with a message, within the limits", LIMIT, async () => {
  const { page } = chat;
  await page.route("**/api/chat/config", async (route) => {
    const config = await (await route.fetch()).json();
    const attachments = { max: 2, max_bytes: 1000, media_types: ["image/png", "application/pdf"] };
    const [allow, models] = [["attachments", "model"], ["large-1", "small-1"]];
    await route.fulfill({ json: { ...config, allow, models, attachments } });
  });
  await page.route("**/api/chat/send", (route) => route.fulfill({ json: { message_id: "m" } }));
  await chat.reload();
  const dot =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
  const png = (name) => ({ name, mimeType: "image/png", buffer: Buffer.from(dot, "base64") });
  const input = page.getByTestId("files");
  const files = page.getByTestId("file");
  const problem = page.getByTestId("excess");
  await input.setInputFiles({ name: "a.zip", mimeType: "application/zip", buffer: Buffer.from("x") });
  await problem.filter({ hasText: "a.zip is not of a kind that can be sent: PNG, PDF." }).waitFor();
  const long = { name: "b.pdf", mimeType: "application/pdf", buffer: Buffer.alloc(2048) };
  await input.setInputFiles(long);
  await problem.filter({ hasText: "b.pdf has 2 KB; at most 1000 bytes can be sent." }).waitFor();
  await input.setInputFiles([png("one.png"), png("two.png"), png("three.png")]);
  await problem.filter({ hasText: "At most 2 files" }).waitFor();
  await page.getByRole("button", { name: "Remove two.png" }).click();
  await becomes(() => files.count(), 1);
  // A picture in the clipboard, as a screenshot is.
  await chat.draft.evaluate((field, data) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
    field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
  }, dot);
  await becomes(() => files.count(), 2);
  await page.getByLabel("Model").selectOption("small-1");
  const request = page.waitForRequest("**/api/chat/send");
  await chat.say("Look");
  const { attachments, model } = (await request).postDataJSON();
  assert.equal(model, "small-1");
  assert.deepEqual(attachments, [
    { type: "image", media_type: "image/png", data: dot, title: "one.png" },
    { type: "image", media_type: "image/png", data: dot, title: "pasted.png" },
  ]);
  await becomes(() => chat.questions.first().locator("img").count(), 2);
  await becomes(() => files.count(), 0);
  assert.deepEqual(chat.faults, []);
});

test("the first visit takes less than 120 KB, the second next to nothing", LIMIT, async () => {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  const client = await context.newCDPSession(page);
  await client.send("Network.enable");
  let bytes = 0;
  client.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
  const visit = async () => {
    bytes = 0;
    await page.goto(`${LEGATO_URL}/?user=${newUser()}`);
    await page.locator('[data-testid="connection"][data-state="live"]').waitFor();
    return bytes;
  };
  const first = await visit();
  assert.ok(first > 50_000 && first < 120_000, `${first} bytes`);
  const second = await visit();
  assert.ok(second < 10_000, `${second} bytes`);
  await context.close();
});
