// The real chat page in a real browser: what a person does and sees.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { ChatPage, launch } from "./browser.mjs";
import { until, words } from "./legato.mjs";

const LIMIT = { timeout: 60_000 };

let browser;
let chat;

before(async () => {
  browser = await launch();
});

after(() => browser.close());

beforeEach(async () => {
  chat = await ChatPage.open(browser);
});

afterEach(() => chat.close());

test("a message is answered token by token, in order", LIMIT, async () => {
  // The page notes each text that a person could have seen.
  await chat.page.evaluate(() => {
    window.seen = [];
    new MutationObserver(() => {
      const text = document.querySelector('[data-role="assistant"] [data-testid="text"]');
      if (text && window.seen.at(-1) !== text.textContent) window.seen.push(text.textContent);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await chat.say("#script tokens=60 rate=60");
  assert.equal(await chat.draft.inputValue(), "");
  await chat.hasStatus("complete");
  const whole = words(0, 60).join("");
  assert.equal(await chat.text(), whole);
  const seen = await chat.page.evaluate(() => window.seen);
  assert.ok(seen.length >= 20, `the text grew in ${seen.length} steps only`);
  seen.reduce((shorter, longer) => {
    assert.ok(longer.startsWith(shorter), `${longer} does not continue ${shorter}`);
    return longer;
  }, "");
  assert.equal(await chat.replies.first().getByTestId("count").textContent(), "60 tokens");
  assert.match(await chat.replies.first().getByTestId("elapsed").textContent(), /^\d+\.\d s$/);
  assert.deepEqual(chat.faults, []);
});

test("the page says who answers", LIMIT, async () => {
  assert.match(await chat.page.getByTestId("provider").textContent(), /ANTHROPIC_API_KEY/);
});

test("Stop ends a reply that streams, for good", LIMIT, async () => {
  await chat.say("#script tokens=2000 rate=20");
  await chat.hasStatus("streaming");
  await until("some tokens", async () => (await chat.text()).includes("w5 "));
  await chat.stopButton.click();
  await chat.hasStatus("cancelled");
  assert.ok(await chat.draft.evaluate((el) => el === document.activeElement));
  const stopped = await chat.text();
  assert.ok(await chat.replies.first().getByText("Stopped").isVisible());
  // The next reply shows that the server is free again, and the first has not moved meanwhile.
  await chat.say("#script tokens=30 rate=60");
  await chat.hasStatus("complete", 2);
  assert.equal(await chat.text(0), stopped);
  assert.equal(await chat.text(1), words(0, 30).join(""));
  assert.deepEqual(chat.faults, []);
});

test("a failure is shown, and Retry asks again in the same place", LIMIT, async () => {
  let posts = 0;
  chat.page.on("request", (request) => {
    if (request.url().endsWith("/api/chat/send")) posts += 1;
  });
  await chat.say("#script tokens=20 rate=50 fail=overloaded@5/always");
  await chat.hasStatus("failed");
  const failure = chat.replies.first().getByTestId("failure");
  assert.match(await failure.textContent(), /Response unavailable\. Please try again\./);
  await chat.retryButton.click();
  await until("a second request", () => posts === 2);
  await chat.hasStatus("failed"); // the script fails each time
  assert.equal(await chat.replies.count(), 1);
  assert.equal(await chat.questions.count(), 1);
  assert.deepEqual(chat.faults, []);
});

test("two messages one after the other, by keyboard and by button", LIMIT, async () => {
  await chat.say("#script tokens=10 rate=100");
  await chat.hasStatus("complete", 1);
  await chat.draft.fill("#script tokens=12 rate=100");
  await chat.sendButton.click();
  await chat.hasStatus("complete", 2);
  assert.equal(await chat.text(0), words(0, 10).join(""));
  assert.equal(await chat.text(1), words(0, 12).join(""));
  assert.deepEqual(chat.faults, []);
});

test("a refresh while a reply streams goes on with it", LIMIT, async () => {
  await chat.say("#script tokens=120 rate=30");
  await until("some tokens", async () => (await chat.text()).includes("w10 "));
  await chat.page.reload();
  await chat.isConnected();
  assert.equal(
    await chat.questions.first().getByTestId("text").textContent(),
    "#script tokens=120 rate=30",
  );
  await chat.hasStatus("streaming");
  await chat.hasStatus("complete");
  assert.equal(await chat.text(), words(0, 120).join(""));
  assert.deepEqual(chat.faults, []);
});

test("a lost connection closes the gate, and the reply is whole in the end", LIMIT, async () => {
  const sockets = [];
  await chat.page.routeWebSocket(/\/app\//, (socket) => {
    sockets.push(socket);
    socket.connectToServer();
  });
  await chat.page.reload();
  await chat.isConnected();
  await chat.page.evaluate(() => {
    const pill = document.querySelector('[data-testid="connection"]');
    window.states = [pill.dataset.state];
    new MutationObserver(() => window.states.push(pill.dataset.state)).observe(pill, {
      attributeFilter: ["data-state"],
    });
  });
  await chat.say("#script tokens=150 rate=30");
  await until("some tokens", async () => (await chat.text()).includes("w10 "));
  await sockets[0].close({ code: 4200 });
  await until("another connection", () => sockets.length === 2);
  await chat.isConnected();
  await chat.hasStatus("complete");
  assert.equal(await chat.text(), words(0, 150).join(""));
  const states = await chat.page.evaluate(() => window.states);
  assert.deepEqual([states.at(0), states.at(-1)], ["live", "live"]);
  assert.ok(states.includes("connecting"), states.join());
});

test("Shift+Enter is a new line; text is text, never HTML", LIMIT, async () => {
  await chat.draft.fill("<b>bold</b>");
  await chat.draft.press("Shift+Enter");
  await chat.draft.pressSequentially("next");
  await chat.draft.press("Enter");
  const question = chat.questions.first().getByTestId("text");
  assert.equal(await question.textContent(), "<b>bold</b>\nnext");
  assert.equal(await question.locator("b").count(), 0);
  await chat.hasStatus("complete");
  assert.deepEqual(chat.faults, []);
});

test("half a character does not end the conversation", LIMIT, async () => {
  await chat.draft.evaluate((field) => {
    field.value = "\ude00 nice";
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
  await chat.draft.press("Enter");
  await chat.hasStatus("complete");
  assert.equal(await chat.questions.first().getByTestId("text").textContent(), "\ufffd nice");
  await chat.say("and again");
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
  await excess.waitFor();
  assert.equal(
    await excess.textContent(),
    "The message is too long: 100,001 of at most 100,000 characters.",
  );
  assert.ok(await chat.sendButton.isDisabled());
  await chat.draft.press("Enter");
  assert.equal((await chat.draft.inputValue()).length, 100_001);
  assert.equal(
    await chat.page.getByTestId("announcement").textContent(),
    await excess.textContent(),
  );
  assert.equal(await chat.questions.count(), 0);
  const page = `#script tokens=5 rate=100 ${"line ".repeat(4_000)}end`;
  await paste(page);
  await excess.waitFor({ state: "hidden" });
  await chat.draft.press("Enter");
  await chat.hasStatus("complete");
  assert.equal(await chat.questions.first().getByTestId("text").textContent(), page);
  const request = chat.page.waitForRequest((sent) => sent.url().endsWith("/api/chat/send"));
  await chat.say("#script tokens=1 rate=100");
  assert.equal((await request).postDataJSON().history[0].content, page);
  await chat.hasStatus("complete", 2);
  assert.deepEqual(chat.faults, []);
});

test("New chat empties the page and stops what runs", LIMIT, async () => {
  await chat.say("#script tokens=2000 rate=20");
  await chat.hasStatus("streaming");
  const cancelled = chat.page.waitForResponse((response) => response.url().endsWith("/cancel"));
  await chat.page.getByRole("button", { name: "New chat" }).click();
  assert.equal((await cancelled).status(), 200);
  assert.equal(await chat.replies.count(), 0);
  assert.ok(await chat.page.getByTestId("empty").isVisible());
  assert.deepEqual(chat.faults, []);
});

test("what a screen reader is told does not change with each token", LIMIT, async () => {
  await chat.page.evaluate(() => {
    window.said = [];
    const region = document.querySelector('[data-testid="announcement"]');
    new MutationObserver(() => window.said.push(region.textContent)).observe(region, {
      subtree: true,
      childList: true,
      characterData: true,
    });
  });
  await chat.say("#script tokens=20 rate=60");
  await chat.hasStatus("complete");
  const said = await chat.page.evaluate(() => window.said);
  assert.deepEqual(said, [
    "Waiting for the reply.",
    "The reply is being written.",
    `Reply: ${words(0, 20).join("")}`,
  ]);
});

for (const colorScheme of ["light", "dark"]) {
  test(`no accessibility fault that a machine can see, ${colorScheme}`, LIMIT, async () => {
    const axe = await readFile(new URL(import.meta.resolve("axe-core/axe.min.js")), "utf8");
    const page = await ChatPage.open(browser, {
      colorScheme,
      bypassCSP: true,
      reducedMotion: "reduce",
    });
    await page.page.addScriptTag({ content: axe });
    const check = async () => {
      const faults = await page.page.evaluate(async () =>
        (await window.axe.run()).violations.map((fault) => [
          fault.id,
          fault.nodes.map((n) => n.html),
        ]),
      );
      assert.deepEqual(faults, []);
    };
    await check();
    await page.say("#script tokens=9 rate=50 fail=overloaded@5/always");
    await page.hasStatus("failed");
    await page.say("#script tokens=2000 rate=20");
    await page.hasStatus("streaming", 2);
    await check();
    await page.close();
  });
}

test("the reader who scrolls up is left alone, and finds the way back", LIMIT, async () => {
  const scroller = chat.page.getByRole("main");
  await chat.say("#script tokens=20000 rate=200");
  await until("a long text", () =>
    scroller.evaluate((el) => el.scrollHeight > el.clientHeight + 400),
  );
  await scroller.hover();
  await chat.page.mouse.wheel(0, -5000);
  const latest = chat.page.getByRole("button", { name: "Latest" });
  await latest.waitFor();
  const before = await scroller.evaluate((el) => ({ top: el.scrollTop, height: el.scrollHeight }));
  await until("growth", () =>
    scroller.evaluate((el, height) => el.scrollHeight > height, before.height),
  );
  assert.equal(await scroller.evaluate((el) => el.scrollTop), before.top);
  await latest.click();
  await until("the end", () =>
    scroller.evaluate((el) => el.scrollHeight - el.scrollTop - el.clientHeight < 60),
  );
  await chat.stopButton.click();
});

test("on a phone nothing is wider than the screen", LIMIT, async () => {
  const phone = await ChatPage.open(browser, {
    viewport: { width: 375, height: 667 },
    isMobile: true,
    hasTouch: true,
  });
  await phone.say(`#script tokens=40 rate=200 ${"x".repeat(200)}`);
  await phone.hasStatus("complete");
  const width = await phone.page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 375, `the page is ${width} pixels wide`);
  assert.ok(await phone.draft.isVisible());
  await phone.close();
});
