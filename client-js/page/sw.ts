/** The service worker: keeps the files of the page, so that it opens without a network. Nothing else passes through it. */

declare const SHELL: readonly string[];
declare const VERSION: string;

interface Lasting extends Event {
  waitUntil(work: Promise<unknown>): void;
}

interface Fetching extends Lasting {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}

interface Worker {
  readonly registration: { readonly scope: string };
  addEventListener(type: "install" | "activate", listener: (event: Lasting) => void): void;
  addEventListener(type: "fetch", listener: (event: Fetching) => void): void;
  skipWaiting(): Promise<void>;
}

const worker = self as unknown as Worker;
const CACHE = `legato-page-${VERSION}`;

/** The page itself is asked for first, so that an update is seen at once; this long, then the kept one is shown. */
const PATIENCE_MS = 4_000;

async function install(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll([...SHELL]);
  await worker.skipWaiting();
}

async function tidy(): Promise<void> {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("legato-page-") && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
}

const kept = (path: string): Promise<Response | undefined> =>
  caches.open(CACHE).then((cache) => cache.match(new URL(path, worker.registration.scope)));

async function page(request: Request): Promise<Response> {
  try {
    return await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    return (await kept("./")) ?? Response.error();
  }
}

async function asset(request: Request, path: string): Promise<Response> {
  return (await kept(path)) ?? fetch(request);
}

worker.addEventListener("install", (event) => {
  event.waitUntil(install());
});

worker.addEventListener("activate", (event) => {
  event.waitUntil(tidy());
});

worker.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  const scope = new URL(worker.registration.scope);
  if (request.method !== "GET" || origin !== scope.origin) return;
  const path = `./${pathname.slice(scope.pathname.length)}`;
  if (path === "./" && request.mode === "navigate") event.respondWith(page(request));
  else if (path !== "./" && SHELL.includes(path)) event.respondWith(asset(request, path));
});
