/** Have the files of the page kept, so that it opens without a network; nothing if the browser does not do that. */

interface Policy {
  createScriptURL(path: string): string;
}

interface PolicyFactory {
  createPolicy(name: string, rules: { createScriptURL: (path: string) => string }): Policy;
}

const WORKER = "sw.js";

export async function keepShell(): Promise<void> {
  if (!("serviceWorker" in navigator)) return; // a page over plain HTTP on a LAN
  const { trustedTypes } = globalThis as { trustedTypes?: PolicyFactory };
  // The page's policy forbids to run a script by its address: all but this one.
  const policy = trustedTypes?.createPolicy("legato", {
    createScriptURL: (path) => {
      if (path !== WORKER) throw new TypeError(`${path} is no script of this page`);
      return path;
    },
  });
  try {
    await navigator.serviceWorker.register(policy?.createScriptURL(WORKER) ?? WORKER);
  } catch {
    // The page works, but not without a network.
  }
}
