// What the server says in the states of states.mjs: a list of conversations that is always the same, one of them with
// other versions, one that cannot be read, and a configuration that allows what `legato up` by itself does not.

export const MODEL = "claude-sonnet-4-6";

export const TITLES = [
  "Packing list for three days in the mountains",
  "Why is the sky dark at night?",
  "Review of the migration to one queue per region, with a title that does not fit",
  "Names for a cat",
];

/** The conversation with other versions, and the one that cannot be read. */
export const [, BRANCHED, UNREADABLE] = TITLES;

const HOURS_AGO = [0.1, 2, 30, 200];

const hoursAgo = (hours) => new Date(Date.now() - hours * 3_600_000).toISOString();

/** A stored conversation in which a reply and a message have other versions. */
function stored(id) {
  const usage = { input: 40, output: 60, cacheRead: 0, cacheWrite: 0 };
  const turn = (message_id, role, parent_id, content, hours) => ({
    ...{ message_id, role, parent_id, content, status: "complete", created_at: hoursAgo(hours) },
    ...(role === "assistant" && { model: MODEL, usage }),
  });
  const why = "Because the universe has a beginning, and the light of most stars has not reached us yet.";
  const turns = [
    turn("m-4", "assistant", "m-4", "Olbers asked it in 1823, and Kepler long before him.", 2),
    turn("m-4", "user", "m-2", "Who was the first to wonder?", 2.001),
    turn("m-3", "user", "m-2", "Who was the first to ask?", 2.2),
    turn("m-2", "assistant", "m-1", why, 2.3),
    turn("m-1", "assistant", "m-1", "Good question!", 2.499),
    turn("m-1", "user", "", BRANCHED, 2.5),
  ];
  const times = { created_at: hoursAgo(3), updated_at: hoursAgo(2) };
  return { id, title: BRANCHED, ...times, turns, next: "m-0" };
}

const ALLOWED = {
  allow: ["model", "attachments"],
  models: ["claude-sonnet-4-6", "claude-haiku-4-5"],
  attachments: { max: 5, max_bytes: 524_288, media_types: ["image/png", "application/pdf"] },
  prices: {
    currency: "USD",
    models: { "claude-*": { input: 3, output: 15, cacheRead: 0.3, cacheWrite: 3.75 } },
  },
};

export class Stage {
  /** Whether the user has conversations. */
  isFilled = false;
  #release;
  /** Until {@link release} the conversation that cannot be read is being read. */
  #held = new Promise((resolve) => (this.#release = resolve));

  release() {
    this.#release();
  }

  async prepare(context) {
    await context.route(/\/api\/conversations\?/, (route) =>
      route.fulfill({ json: { conversations: this.#found(route.request().url()), next: null } }),
    );
    await context.route(/\/api\/conversations\/c-1\b/, (route) =>
      route.fulfill({ json: stored("c-1") }),
    );
    await context.route(/\/api\/conversations\/c-2\b/, async (route) => {
      await this.#held;
      await route.fulfill({ status: 503, json: { message: "The database does not answer." } });
    });
    await context.route("**/api/chat/config", async (route) => {
      const config = await (await route.fetch()).json();
      await route.fulfill({ json: { ...config, ...ALLOWED } });
    });
  }

  #found(url) {
    const wanted = new URL(url).searchParams.get("q") ?? "";
    const all = TITLES.map((title, index) => {
      const updated_at = hoursAgo(HOURS_AGO[index]);
      return { id: `c-${index}`, title, created_at: updated_at, updated_at };
    });
    return this.isFilled ? all.filter(({ title }) => title.includes(wanted)) : [];
  }
}
