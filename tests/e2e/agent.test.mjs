// The chat page with an agent: a real worker, tools that run, an approval that is decided by a click.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { ChatPage, launch } from "./browser.mjs";
import { becomes } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };

let browser;
let chat;

before(async () => {
  browser = await launch();
  chat = await ChatPage.open(browser);
});

after(() => browser.close());

afterEach(() => assert.deepEqual(chat.faults, []));

const SCRIPT =
  '#script rate=200 reason=5 tokens=3 tool=weather:{"city":"Oslo"} tool=send_mail:{"to":"ann"} tokens=2 cite=https://example.org/oslo';

const shows = (locator, text) => locator.filter({ hasText: text }).waitFor();

async function ask() {
  await chat.reopen();
  await chat.say(SCRIPT);
  await chat.hasStatus("waiting");
  const tools = chat.page.getByTestId("tool");
  await shows(tools.nth(0).getByTestId("tool-state"), /^Done$/);
  await shows(tools.nth(1).getByTestId("tool-state"), /^Waits for your approval$/);
  return tools;
}

const blocks = () =>
  chat.page
    .locator('[data-role="assistant"] .block')
    .evaluateAll((found) => found.map((block) => block.dataset.type));

test("a tool that needs an approval runs after it, and the reply goes on", LIMIT, async () => {
  const tools = await ask();
  await chat.page.getByTestId("note").fill("Go ahead.");
  await chat.page.getByRole("button", { name: "Approve send_mail" }).click();
  await chat.hasStatus("complete");
  await shows(tools.nth(1).getByTestId("tool-state"), /^Done$/);
  await shows(tools.nth(1).getByTestId("tool-note"), "Go ahead.");
  await tools.nth(1).getByTestId("tool-summary").click();
  await shows(tools.nth(1).getByTestId("tool-output"), "sent to ann");
  await becomes(blocks, ["reasoning", "text", "tool", "tool", "text"]);
  const texts = () => chat.replies.first().getByTestId("text").allTextContents();
  await becomes(texts, ["w0 w1 w2 ", "w3 w4 1"]);
});

test("a refusal after a reload is told to the model, which goes on", LIMIT, async () => {
  await ask();
  await chat.reload();
  await chat.hasStatus("waiting");
  await chat.page.getByRole("button", { name: "Deny send_mail" }).click();
  await chat.hasStatus("complete");
  await shows(chat.page.getByTestId("tool").nth(1).getByTestId("tool-state"), /^Denied$/);
  await becomes(blocks, ["reasoning", "text", "tool", "tool", "text"]);
});

test("Stop ends a reply that waits", LIMIT, async () => {
  const tools = await ask();
  const cancelled = chat.page.waitForResponse((response) => response.url().endsWith("/cancel"));
  await chat.stopButton.click();
  assert.equal((await cancelled).status(), 200);
  await chat.hasStatus("cancelled");
  await shows(tools.nth(1).getByTestId("tool-state"), /^Stopped$/);
  // The next reply shows that the server is free again.
  await chat.say("#script tokens=3 rate=200");
  await chat.hasStatus("complete", 2);
});
