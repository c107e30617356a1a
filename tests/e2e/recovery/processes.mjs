// The processes of a running Legato, to be killed and weighed.

import { readdirSync, readFileSync, readlinkSync } from "node:fs";

import { until } from "../legato.mjs";

const ROOT = Number(process.env.LEGATO_PID);

function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it has ended
  }
}

function links(directory) {
  try {
    return readdirSync(directory).map((name) => readlinkSync(`${directory}/${name}`));
  } catch {
    return [];
  }
}

/** The processes of a kind, `broadcaster` or `worker`, that do the work: those without children of their own. */
export function processes(kind) {
  const parents = new Map();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const parent = Number(read(`/proc/${name}/stat`).split(") ").at(-1).split(" ")[1]);
    parents.set(Number(name), parent);
  }
  const isBelow = (pid) => pid === ROOT || (parents.has(pid) && isBelow(parents.get(pid)));
  const isParent = new Set(parents.values());
  return [...parents.keys()].filter((pid) => {
    if (isParent.has(pid) || !isBelow(pid)) return false;
    return read(`/proc/${pid}/cmdline`).split("\0").includes(kind);
  });
}

/** Whether the process accepts connections at the port of Legato. */
function listens(pid) {
  const port = Number(new URL(process.env.LEGATO_URL).port)
    .toString(16)
    .toUpperCase()
    .padStart(4, "0");
  const rows = read("/proc/net/tcp")
    .split("\n")
    .map((row) => row.trim().split(/\s+/));
  const inodes = rows
    .filter(([, local, , state]) => local?.endsWith(`:${port}`) && state === "0A")
    .map((row) => `socket:[${row[9]}]`);
  return links(`/proc/${pid}/fd`).some((target) => inodes.includes(target));
}

/** Kill these, and wait until each has been replaced by another that is ready. */
export async function kill(pids, kind) {
  const count = processes(kind).length;
  for (const pid of pids) process.kill(pid, "SIGKILL");
  const isReplaced = () => {
    const left = processes(kind);
    const isReady = (one) => !pids.includes(one) && (kind === "worker" || listens(one));
    return left.length === count && left.every(isReady);
  };
  await until(`another ${kind}`, isReplaced, 60);
}

/** Resident memory of these processes together, in MB. */
export function weight(pids) {
  const of = (pid) => Number(/^VmRSS:\s+(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0);
  return pids.reduce((sum, pid) => sum + of(pid), 0) / 1024;
}
