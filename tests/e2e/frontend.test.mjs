// docs/frontend.md, followed to the letter from an empty folder, in a real browser.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { after, before, test } from "node:test";

import { launch, watch } from "./browser.mjs";
import { LEGATO_URL, newUser, until, words } from "./legato.mjs";

const CLIENT = resolve("../../client-js");
const PAGE_PORT = process.env.PAGE_PORT;
const TARBALL = "legato-client-0.1.0.tgz";

/** What the page installs from the registry; here it comes from the packages of these tests. */
const FROM_REGISTRY = ["laravel-echo", "pusher-js", "esbuild"];

let folder;
let blocks;
let browser;
const servers = [];

/** Gives the code block below the heading that has `part`. */
async function readPage() {
  const text = await readFile("../../docs/frontend.md", "utf8");
  const sections = text.split(/^## /m).slice(1);
  return (part) => {
    const section = sections.find((found) => found.split("\n", 1)[0].includes(part));
    const [, code] = /^```\w*\n(.*?)^```$/ms.exec(section);
    return code;
  };
}

function start(command, options) {
  // A group of its own, so that npx leaves nothing behind.
  const child = spawn("sh", ["-c", command], { ...options, detached: true });
  child.said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (child.said += data));
  child.ended = new Promise((done) => child.once("close", done));
  return child;
}

async function run(command, cwd) {
  const child = start(command, { cwd });
  assert.equal(await child.ended, 0, child.said);
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "legato-frontend-"));
  blocks = await readPage();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  for (const child of servers) {
    process.kill(-child.pid);
    await child.ended;
  }
  await rm(folder, { recursive: true, force: true });
});

test("the page leads from an empty folder to a reply", { timeout: 240_000 }, async () => {
  // What was built is packed: that `npm pack` builds it is for the package's own tests to say.
  await run(`npm pack --silent --ignore-scripts --pack-destination ${folder}`, CLIENT);

  const [own, others] = blocks("2.").trim().split("\n");
  assert.equal(own, `npm install ./${TARBALL}`);
  await run(`${own} --offline --no-audit --no-fund`, folder);
  assert.deepEqual(others.replace("npm install ", "").split(" "), FROM_REGISTRY);
  for (const name of FROM_REGISTRY)
    await symlink(resolve("node_modules", name), join(folder, "node_modules", name));

  const user = newUser();
  await mkdir(join(folder, "src"));
  const code = blocks("src/chat.js")
    .replace("http://127.0.0.1:8080", LEGATO_URL)
    .replace("userId = 7", `userId = ${user}`);
  await writeFile(join(folder, "src", "chat.js"), code);
  await writeFile(join(folder, "index.html"), blocks("index.html"));

  const bin = resolve("node_modules", ".bin");
  const path = [bin, process.env.PATH].join(delimiter);
  const command = blocks("5.").replace("3000", PAGE_PORT);
  servers.push(start(command, { cwd: folder, env: { ...process.env, PATH: path } }));
  const url = `http://localhost:${PAGE_PORT}/`;
  await until("the page", () => fetch(url).then((answer) => answer.ok, () => false));

  const page = await browser.newPage();
  const faults = await watch(page);
  await page.goto(url);
  await page.getByText("live", { exact: true }).waitFor();
  await page.getByLabel("Message").fill("#script tokens=40 rate=40");
  await page.getByLabel("Message").press("Enter");
  const reply = page.locator('li[data-role="assistant"]');
  await until("some of it", async () => (await reply.textContent()).includes("w5 "));
  await page.reload();
  await page.locator('li[data-role="assistant"][data-status="complete"]').waitFor();
  assert.equal(await reply.textContent(), words(0, 40).join(""));

  await page.context().setOffline(true);
  await page.getByText("offline", { exact: true }).waitFor({ timeout: 15_000 });
  await page.getByLabel("Message").fill("#script tokens=3 rate=40");
  await page.getByLabel("Message").press("Enter");
  await page.locator('li[data-status="unsent"]').waitFor();
  await page.context().setOffline(false);
  await until("both", async () => (await page.locator('li[data-status="complete"]').count()) === 2);
  assert.equal(await reply.nth(1).textContent(), words(0, 3).join(""));
  assert.deepEqual(faults, []);
});
