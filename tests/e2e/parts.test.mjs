// What the chat page shows of a reply besides its text: events as a worker publishes them, over the
// HTTP API and real sockets. Only the answers about the message itself are made up, in the browser.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { ChatPage, launch } from "./browser.mjs";
import { becomes, until } from "./legato.mjs";
import { answerFor, everything, Recorded } from "./recorded.mjs";
import { SCREENS } from "./states.mjs";

const LIMIT = { timeout: 180_000 };

let browser;
let shared;
let others = [];

before(async () => {
  browser = await launch();
  shared = await ChatPage.open(browser);
});

after(() => browser.close());

afterEach(async () => {
  const pages = others.splice(0);
  await Promise.all(pages.map((chat) => chat.page.close()));
  for (const chat of [shared, ...pages]) assert.deepEqual(chat.faults, []);
});

/** A tab that the page opens begins with a copy of what the page has stored. */
async function anotherTab(chat) {
  const opened = chat.page.waitForEvent("popup");
  await chat.page.evaluate(() => void window.open(location.href));
  const other = new ChatPage(await opened);
  others.push(other);
  other.tools = other.page.getByTestId("tool");
  await other.isConnected();
  return other;
}

/** Open all that is folded, as a person does. */
async function unfold(chat) {
  const folded = chat.page.locator("details:not([open]) > summary");
  while (await folded.count()) await folded.first().click();
}

/** A page that has asked, with the recorded reply that it gets. `decide(request)` answers about approvals. */
async function begin({ decide, chat = shared } = {}) {
  if (chat === shared) await chat.reopen();
  const reply = new Recorded(chat.user);
  chat.tools = chat.page.getByTestId("tool");
  await answerFor(chat, reply, decide);
  await chat.say("What is the weather in Oslo?");
  await chat.hasStatus("thinking");
  return { chat, reply };
}

const shows = (locator, text) => locator.filter({ hasText: text }).waitFor();

/** The browser has told of this answer, as it does: that is no fault. */
async function isFault(chat, status) {
  await until(status, () => chat.faults.some((fault) => fault.includes(status)));
  const others = chat.faults.filter((fault) => !fault.includes(status));
  chat.faults.splice(0, Infinity, ...others);
}

const isGone = (locator) => locator.waitFor({ state: "detached" });

const isFocused = (locator) =>
  until("the focus", () => locator.evaluate((el) => el === document.activeElement));

const byName = (chat, name) => chat.page.getByRole("button", { name, exact: true });

test("reasoning is folded, says that it goes on, and then how long it took", LIMIT, async () => {
  const { chat, reply } = await begin();
  await reply.reason("The user asks ", "for <b>weather</b>.");
  const title = chat.page.getByTestId("reasoning-title");
  await shows(title, /^Thinking…$/);
  const text = chat.page.getByTestId("reasoning-text");
  await text.waitFor({ state: "hidden" });
  await title.click();
  await shows(text, "The user asks for <b>weather</b>.");
  assert.equal(await text.locator("b").count(), 0);
  await reply.text("It ", "rains.");
  await shows(title, /^Thought for \d+ s$/);
  await becomes(() => chat.text(), "It rains.");
  assert.ok(await text.isVisible(), "what the reader opened stays open");
  await reply.completed();
  await chat.hasStatus("complete");
});

test("a tool call is one row, from its first piece to its output", LIMIT, async () => {
  const { chat, reply } = await begin();
  await reply.text("I ", "look. ");
  await reply.part("tool.started", { call: "c1", name: "weather" });
  const state = chat.tools.getByTestId("tool-state");
  await shows(state, /^Preparing$/);
  await reply.part("tool.input_received", { call: "c1", delta: '{"city":' });
  await reply.called("c1", "weather", { city: "<img src=x onerror=alert(1)>" });
  await reply.step(1);
  await shows(state, /^Running$/);
  await reply.finished("c1", "weather", { ok: true, output: { rows: Array(300).fill("rain") } });
  await shows(state, /^Done$/);
  await reply.text("It ", "rains.");
  await reply.step(2);
  await reply.completed();
  await chat.hasStatus("complete");
  assert.equal(await chat.tools.count(), 1);
  const input = chat.tools.getByTestId("tool-input");
  assert.ok(await input.isHidden());
  await chat.tools.getByTestId("tool-summary").press("Enter");
  assert.equal(
    await input.textContent(),
    '{\n  "city": "<img src=x onerror=alert(1)>"\n}',
  );
  assert.equal(await input.locator("img").count(), 0);
  const output = chat.tools.getByTestId("tool-output");
  const { height } = await output.boundingBox();
  assert.ok(height < 300, `the output is ${height} pixels high`);
  // Text, tool, text, in this order.
  const kinds = await chat.page
    .locator('[data-role="assistant"] .block')
    .evaluateAll((found) => found.map((block) => [block.dataset.type, block.textContent.trim()]));
  assert.deepEqual(
    kinds.map(([type, text]) => (type === "text" ? text : type)),
    ["I look.", "tool", "It rains."],
  );
});

test("what failed says so, with its error", LIMIT, async () => {
  const { chat, reply } = await begin();
  await reply.called("c1", "weather", { city: "Oslo" });
  await reply.finished("c1", "weather", { ok: false, error: "No such city." });
  await shows(chat.tools.getByTestId("tool-state"), /^Failed$/);
  await chat.tools.getByTestId("tool-summary").click();
  await shows(chat.tools.getByTestId("tool-output"), "No such city.");
});

test("an approval by keyboard, with a note; another tab sees it and loses its buttons", LIMIT, async () => {
  const { chat, reply } = await begin();
  await reply.text("I ", "ask. ");
  await reply.asked("c1", "send_mail", { to: "ann@example.org" });
  await reply.step(1);
  reply.status = "waiting";
  await chat.hasStatus("waiting");
  await shows(chat.page.getByTestId("waiting"), "Waits for your approval");
  await chat.tools.getByTestId("tool-input").waitFor(); // what is approved is shown
  await chat.stopButton.waitFor();

  const other = await anotherTab(chat);
  await byName(other, "Deny send_mail").waitFor();
  await other.hasStatus("waiting");

  await chat.tools.getByTestId("tool-summary").focus();
  await chat.page.keyboard.press("Tab"); // the input, which can be scrolled
  await chat.page.keyboard.press("Tab");
  await chat.page.keyboard.type("Go ahead.");
  await chat.page.keyboard.press("Enter"); // decides nothing
  await chat.page.keyboard.press("Tab");
  await isFocused(byName(chat, "Approve send_mail"));
  await chat.page.keyboard.press("Enter");
  const state = (page) => page.tools.getByTestId("tool-state");
  await shows(state(chat), /^Approved, running$/);
  assert.deepEqual(chat.decisions, [["c1", { approve: true, note: "Go ahead." }]]);
  await isGone(byName(chat, "Approve send_mail"));
  await isFocused(chat.tools.getByTestId("tool-summary"));

  reply.status = "streaming";
  await reply.decided("c1", true, { note: "Go ahead." });
  await shows(state(other), /^Approved, running$/);
  await isGone(byName(other, "Deny send_mail"));
  await shows(other.page.getByTestId("tool-note"), "Go ahead.");
  await reply.finished("c1", "send_mail", { ok: true, output: "sent" });
  await reply.text("Done.");
  await reply.completed();
  for (const page of [chat, other]) {
    await page.hasStatus("complete");
    await shows(state(page), /^Done$/);
  }
  assert.equal(chat.decisions.length, 1);
});

test("while a decision is sent its buttons are off; one that is lost can be made again", LIMIT, async () => {
  let release;
  const answers = [
    new Promise((resolve) => (release = () => resolve({ status: 503, json: { message: "Try later." } }))),
    { json: {} },
  ];
  const { chat, reply } = await begin({ decide: () => answers.shift() });
  await reply.asked("c1", "send_mail", { to: "ann@example.org" });
  await byName(chat, "Deny send_mail").click();
  await until("a request", () => chat.decisions.length);
  for (const name of ["Deny send_mail", "Approve send_mail"]) {
    await becomes(() => byName(chat, name).isDisabled(), true);
  }
  release();
  await shows(chat.page.getByTestId("approval-problem"), "The service is busy. Try again in a moment.");
  await shows(chat.page.getByTestId("announcement"), "send_mail: The service is busy. Try again in a moment.");
  await byName(chat, "Deny send_mail").click();
  await shows(chat.tools.getByTestId("tool-state"), /^Denied$/);
  assert.deepEqual(chat.decisions, Array(2).fill(["c1", { approve: false }]));
  await isFault(chat, "503");
});

test("a decision that comes too late takes the buttons away and says why", LIMIT, async () => {
  const { chat, reply } = await begin({ decide: () => ({ status: 409, json: { message: "x" } }) });
  await reply.asked("c1", "send_mail", {});
  reply.status = "waiting";
  await byName(chat, "Approve send_mail").click();
  await shows(chat.tools.getByTestId("tool-state"), /^Decided already$/);
  await isGone(byName(chat, "Approve send_mail"));
  await isFault(chat, "409");
});

test("Stop ends a reply that waits, and its buttons", LIMIT, async () => {
  const { chat, reply } = await begin();
  await reply.asked("c1", "send_mail", {});
  await byName(chat, "Approve send_mail").waitFor();
  const cancelled = chat.page.waitForResponse((response) => response.url().endsWith("/cancel"));
  await chat.stopButton.click();
  await cancelled;
  await chat.hasStatus("cancelled");
  await shows(chat.tools.getByTestId("tool-state"), /^Stopped$/);
  await isGone(byName(chat, "Approve send_mail"));
});

test("citations are numbered links, of web addresses only", LIMIT, async () => {
  const { chat, reply } = await begin();
  await reply.text("Rain", " in Oslo");
  await reply.cite("https://example.org/oslo", "Weather in Oslo");
  await reply.text(", and ", "more.");
  await reply.cite("javascript:alert(1)", "A trap");
  await reply.cite("https://example.org/oslo", "Weather in Oslo");
  await reply.completed();
  await chat.hasStatus("complete");
  const marks = chat.page.getByTestId("citation");
  await becomes(() => marks.allTextContents(), ["1", "2", "1"]);
  assert.equal(await chat.text(), "Rain in Oslo1, and more.21");
  const link = chat.page.getByRole("link", { name: "Source 1: Weather in Oslo" }).first();
  assert.equal(await link.getAttribute("href"), "https://example.org/oslo");
  assert.match(await link.getAttribute("rel"), /noopener/);
  const links = await chat.page.locator("[data-role=assistant] a").all();
  assert.equal(links.length, 3); // two marks, one source
  assert.deepEqual(await chat.page.getByTestId("sources").getByRole("listitem").count(), 2);
});

test("a reload in the middle shows the same again, in its place", LIMIT, async () => {
  const { chat, reply } = await begin();
  await reply.reason("Hm. ", "So.");
  await reply.text("I ", "look. ");
  await reply.called("c1", "weather", { city: "Oslo" });
  await reply.step(1);
  await reply.text("It ", "rains");
  await shows(chat.replies, "rains");
  const layout = () =>
    chat.page
      .locator('[data-role="assistant"] .block')
      .evaluateAll((found) => found.map((block) => block.textContent.replaceAll(/\s+/g, " ").trim()));
  const before = await layout();
  await chat.reload();
  await reply.text(" today.");
  await reply.finished("c1", "weather", { ok: true, output: "rain" });
  await shows(chat.replies, "rains today.");
  await shows(chat.tools.getByTestId("tool-state"), /^Done$/);
  const later = await layout();
  assert.equal(later.length, before.length);
  assert.equal(later.at(-1), "It rains today.");
  assert.match(later[0], /Hm\. So\./);
});

test("a screen reader is told how tools stand, and never what they gave", LIMIT, async () => {
  const { chat, reply } = await begin();
  await chat.page.evaluate(() => {
    window.said = [];
    const region = document.querySelector('[data-testid="announcement"]');
    new MutationObserver(() => window.said.push(region.textContent)).observe(region, {
      subtree: true,
      childList: true,
      characterData: true,
    });
  });
  const said = (text) => until(text, () => chat.page.evaluate((t) => window.said.includes(t), text));
  await reply.called("c1", "weather", { city: "Oslo" });
  await said("weather: Running.");
  await reply.finished("c1", "weather", { ok: true, output: "secret output" });
  await said("weather: Done.");
  await reply.asked("c2", "send_mail", {});
  await said("send_mail: Waits for your approval. The reply waits for your approval.");
  assert.ok(!(await chat.page.evaluate(() => window.said.join())).includes("secret"));
});

test("on a phone nothing is wider than the screen, and the buttons are large enough", LIMIT, async () => {
  const phone = await ChatPage.open(browser, SCREENS.phone);
  others.push(phone);
  const { chat, reply } = await begin({ chat: phone });
  await everything(reply);
  await reply.called("c4", `a_tool_with_${"quite_".repeat(9)}a_name`, { x: "x".repeat(400) });
  await chat.tools.nth(3).waitFor();
  await unfold(chat);
  const width = await chat.page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 390, `the page is ${width} pixels wide`);
  for (const name of ["Approve send_mail", "Deny send_mail"]) {
    const box = await byName(chat, name).boundingBox();
    assert.ok(box.height >= 36 && box.x >= 0 && box.x + box.width <= 390, JSON.stringify(box));
  }
});
