// The examples of docs/examples in a real browser: `legato-client` in four ways and behind a back end, and the
// application of the article through two back ends. Each page has a user of its own, so they run
// beside each other.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { extname, join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { preview } from "vite";

import { launch, watch } from "./browser.mjs";
import { LEGATO_URL, newUser, until, words } from "./legato.mjs";

const { EXAMPLES, FASTAPI_URL, DJANGO_URL } = process.env;
const LIMIT = { timeout: 240_000 };
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const CDN = "https://cdn.jsdelivr.net/npm/";

let browser;
let server;
let origin;

/** Serves the built examples; a back end would write the user's id into the page, as this does. */
async function serve(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://x");
  const file = join(EXAMPLES, pathname.endsWith("/") ? `${pathname}index.html` : pathname);
  const type = TYPES[extname(file)];
  let text = await readFile(file, "utf8");
  if (type === "text/html") {
    text = text.replace('content="7"', `content="${searchParams.get("user")}"`);
    text = text.replace("http://127.0.0.1:8080", LEGATO_URL);
  }
  response.writeHead(200, { "Content-Type": type }).end(text);
}

/** Answers for the CDN with the file of the package, if it is the version that these tests have. */
async function asCdn(route) {
  const url = route.request().url();
  const [, name, version, path] = /^((?:@[^/]+\/)?[^@]+)@([^/]+)\/(.*)$/.exec(
    url.slice(CDN.length),
  );
  const folder = resolve("node_modules", name);
  assert.equal(version, JSON.parse(await readFile(join(folder, "package.json"), "utf8")).version);
  const headers = { "Access-Control-Allow-Origin": "*", "Content-Type": "text/javascript" };
  await route.fulfill({ headers, body: await readFile(join(folder, path)) });
}

async function newPage() {
  const context = await browser.newContext({ viewport: { width: 480, height: 360 } });
  context.setDefaultTimeout(60_000);
  await context.route(`${CDN}**`, asCdn);
  const page = await context.newPage();
  return { page, faults: await watch(page) };
}

before(async () => {
  browser = await launch();
  server = http.createServer((request, response) => {
    serve(request, response).catch((error) => response.writeHead(404).end(String(error)));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  origin = `http://localhost:${server.address().port}`;
});

after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});

/** What a person does with any of the pages. */
class Chat {
  constructor(page) {
    this.page = page;
    this.draft = page.getByLabel("Message");
    this.replies = page.locator('li[data-role="assistant"]');
  }

  async isLive() {
    await this.page
      .getByRole("status")
      .filter({ hasText: /^live$/ })
      .waitFor();
  }

  async say(text) {
    await this.draft.fill(text);
    await this.draft.press("Enter");
  }

  /** By keyboard: while text comes, a button moves, and Playwright clicks only what stands still. */
  press(name) {
    return this.page.getByRole("button", { name, exact: true }).press("Enter");
  }

  text(index) {
    return this.replies.nth(index).locator("span").last().textContent();
  }

  /** Wait until the reply has this status, and this text if it is given. */
  async has(index, status, tokens) {
    const reply = this.page.locator(`[data-status="${status}"]`).and(this.replies.nth(index));
    await reply.waitFor();
    if (tokens !== undefined) assert.equal(await this.text(index), words(0, tokens).join(""));
  }

  async shows(index, part) {
    const isThere = async () => (await this.text(index)).includes(part);
    await until(`"${part}" in reply ${index}`, isThere, 60);
  }
}

/** Send, stream, regenerate, stop, fail, retry, reload. */
async function converse(page, faults) {
  const chat = new Chat(page);
  await chat.isLive().catch((error) => assert.fail(`${error}\n${faults.join("\n")}`));

  await chat.say("#script tokens=20 rate=40");
  assert.equal(await chat.draft.inputValue(), "");
  await chat.has(0, "complete", 20);

  const again = page.waitForRequest("**/api/chat/send");
  await chat.press("Regenerate");
  await again;
  await chat.has(0, "complete", 20);
  assert.equal(await chat.replies.count(), 1);

  await chat.say("#script tokens=2000 rate=20");
  await chat.shows(1, "w3 ");
  await chat.press("Stop");
  await chat.has(1, "cancelled");

  await page.route("**/api/chat/send", (route) => route.fulfill({ status: 500 }), { times: 1 });
  await chat.say("#script tokens=2000 rate=20");
  await chat.has(2, "failed");
  await chat.press("Retry");
  await chat.shows(2, "w3 ");
  await page.reload();
  await chat.isLive();
  await chat.has(2, "streaming");
  const { length } = (await chat.text(2)).match(/w\d+ /g);
  await chat.shows(2, `w${length + 5} `);
  await chat.press("Stop");
  await chat.has(2, "cancelled");
  const whole = (await chat.text(2)).match(/w\d+ /g);
  assert.deepEqual(whole, words(0, whole.length));
  await chat.has(0, "complete", 20);
  assert.equal(await chat.replies.count(), 3);
  // What this test refused, and nothing else.
  assert.deepEqual(
    faults.filter((fault) => !fault.includes("500")),
    [],
  );
}

/** Sign in at a back end, which leads to its page. */
async function signIn(backEnd, page) {
  const user = newUser();
  await page.goto(`${backEnd}/login/${user}`);
  return user;
}

/** A call of a script in the page, with what the session needs. */
const call = (page, path, { type = "application/json", ...options } = {}) =>
  page.evaluate(
    async ([path, type, options]) => {
      const csrf = document.querySelector('meta[name="csrf-token"]')?.content ?? "";
      const headers = { "Content-Type": type, "X-CSRF-TOKEN": csrf };
      const response = await fetch(path, { headers, ...options });
      return { status: response.status, text: await response.text() };
    },
    [path, type, options],
  );

const post = (page, path, body) => call(page, path, { method: "POST", body: JSON.stringify(body) });

const authorize = (page, channel_name) =>
  call(page, "/broadcasting/auth", {
    type: "application/x-www-form-urlencoded",
    method: "POST",
    body: new URLSearchParams({ socket_id: "1.1", channel_name }).toString(),
  });

/** The application of the article: send with history, stop, fail; and what its back end refuses. */
async function useArticle(backEnd) {
  const { page, faults } = await newPage();
  const bodies = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/api/chat/send")) bodies.push(request.postDataJSON());
  });
  assert.equal((await page.goto(`${backEnd}/`)).status(), 401);
  faults.splice(0);
  const user = await signIn(backEnd, page);
  const chat = new Chat(page);
  const open = page.locator("textarea:enabled");
  await open.waitFor();

  // As a model does, it takes a while before the first token.
  const question = "#script reason=10 tokens=20 rate=40";
  const sent = page.waitForResponse("**/api/chat/send");
  await chat.say(question);
  const { message_id } = await (await sent).json();
  await chat.has(0, "complete", 20);

  await chat.say("#script reason=10 tokens=2000 rate=20");
  await chat.shows(1, "w3 ");
  await chat.press("Stop");
  await chat.has(1, "cancelled");
  const stopped = await chat.text(1);

  await chat.say("#script reason=10 tokens=9 rate=40 fail=refusal@12/always");
  await chat.has(2, "failed");
  assert.notEqual(await chat.replies.nth(2).getByRole("alert").textContent(), "");
  assert.equal(await chat.text(1), stopped);
  assert.deepEqual(bodies[0].history, []);
  assert.deepEqual(
    bodies[2].history.map(({ role, content }) => [role, content]),
    [
      ["user", question],
      ["assistant", words(0, 20).join("")],
      ["user", bodies[1].message],
      ["assistant", stopped],
    ],
  );
  assert.deepEqual(faults, []);

  // The back end's token is one for Legato, and of this user.
  const { text: token } = await call(page, "/chat-token");
  const headers = { Authorization: `Bearer ${token}` };
  const log = await fetch(`${LEGATO_URL}/api/chat/${message_id}`, { headers });
  assert.equal((await log.json()).text, words(0, 20).join(""));

  assert.equal((await authorize(page, `private-ai-chat.${user}`)).status, 200);
  assert.equal((await authorize(page, `private-ai-chat.${user + 1}`)).status, 403);
  assert.equal((await post(page, "/api/chat/send", { message: "x".repeat(2001) })).status, 422);
  assert.equal((await post(page, "/api/chat/send", { message: "x", history: [1] })).status, 422);
  const lone = { message: "\ud83d is half a character", history: [] };
  assert.ok([200, 422].includes((await post(page, "/api/chat/send", lone)).status));
  await signIn(backEnd, page); // another user
  assert.equal((await post(page, `/api/chat/${message_id}/cancel`, {})).status, 404);
}

describe("in Chromium", { concurrency: 3 }, () => {
  for (const name of ["html", "react", "vue", "alpine"])
    test(name, LIMIT, async () => {
      const { page, faults } = await newPage();
      await page.goto(`${origin}/${name === "html" ? name : `${name}/dist`}/?user=${newUser()}`);
      await converse(page, faults);
    });

  test("the whole chat page, as `npm run preview` serves it", LIMIT, async (t) => {
    const configFile = join(EXAMPLES, "page/vite.config.js");
    const { page, faults } = await newPage();
    const vite = await preview({ configFile, preview: { port: 0 } });
    t.after(async () => {
      await page.close(); // which has connections that the server would wait for
      await vite.close();
    });
    const opened = await page.goto(`${vite.resolvedUrls.local[0]}?user=${newUser()}`);
    assert.match(opened.headers()["content-security-policy"], /default-src 'none'; script-src 'self';/);
    await page.locator('[data-testid="connection"][data-state="live"]').waitFor();
    await new Chat(page).say("#script tokens=20 rate=40");
    const reply = page.locator('[data-role="assistant"][data-status="complete"]');
    assert.equal(await reply.getByTestId("text").textContent(), words(0, 20).join(""));
    await page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
    assert.deepEqual(faults, []);
  });

  test(
    "laravel's bootstrap.js, with the sessions and the tokens of a back end",
    LIMIT,
    async () => {
      const { page, faults } = await newPage();
      await page.request.get(`${FASTAPI_URL}/login/7`);
      await page.goto(`${FASTAPI_URL}/build/laravel.html`);
      await converse(page, faults);
    },
  );

  test("the article's application behind FastAPI", LIMIT, () => useArticle(FASTAPI_URL));
  test("the article's application behind Django", LIMIT, () => useArticle(DJANGO_URL));
});
