// An application as Legato's users write them: it says who may hear what, publishes through the
// official SDK, and receives webhooks. And its users, each with a stock pusher-js.

import assert from "node:assert/strict";
import http from "node:http";
import PusherServer from "pusher";
import Pusher from "pusher-js";

import { LEGATO_URL, until } from "./legato.mjs";

export const { hostname: HOST, port } = new URL(LEGATO_URL);
export const PORT = Number(port);

/** The event as which Laravel broadcasts every notification. */
export const NOTIFICATION = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated";

const PAGE = '<!doctype html><title>An application</title><link rel="icon" href="data:,">';
const IGNORED = new Set(["pusher:pong", "pusher:ping"]);

/** The applications of the configuration: `counted` has subscription counts and webhooks. */
export const APPS = {
  plain: { appId: "1", key: "app-key", secret: "app-secret" },
  counted: { appId: "2", key: "counted-key", secret: "counted-secret" },
};

let names = 0;

/** A name that no other scenario uses. */
export const fresh = (prefix) => `${prefix}${process.pid}-${++names}`;

/** A person's `user_info`. */
export const info = (id) => ({ name: `User ${id}` });

async function readBody(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

export class Application {
  /** User id -> the ids whose presence that user watches. */
  watchlists = new Map();
  /** Events of the webhooks that were valid, in the order of their arrival. */
  webhooks = [];
  /** What went wrong where no scenario can see it. */
  faults = [];
  people = [];

  #routes = {
    "/broadcasting/auth": (request, body) => this.#authorize(request, body),
    "/broadcasting/user-auth": (request, body) => this.#authenticate(request, body),
    "/messages": (request, body) => this.#publish(request, body),
    "/webhooks": (request, body) => this.#receive(request, body),
  };

  static async start(app = APPS.plain, port = 0) {
    const application = new Application(app);
    await new Promise((resolve) => application.server.listen(port, "127.0.0.1", resolve));
    application.url = `http://127.0.0.1:${application.server.address().port}`;
    return application;
  }

  constructor(app) {
    this.app = app;
    this.key = app.key;
    this.sdk = this.encrypting("legato");
    this.forger = this.encrypting("legato", { secret: "not-the-secret" });
    this.server = http.createServer((request, response) => this.#answer(request, response));
  }

  /** The application's SDK with this for a master key. */
  encrypting(word, changes = {}) {
    return new PusherServer({
      ...this.app,
      host: HOST,
      port: PORT,
      useTLS: false,
      encryptionMasterKeyBase64: Buffer.alloc(32, word).toString("base64"),
      ...changes,
    });
  }

  async #answer(request, response) {
    const path = new URL(request.url, "http://x").pathname;
    // Chromium's page is of another origin.
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.setHeader("Access-Control-Allow-Headers", "*, Authorization");
    try {
      if (request.method === "OPTIONS") return response.writeHead(204).end();
      const body = await readBody(request);
      const answer = await (this.#routes[path] ?? this.#page)(request, body, path);
      if (answer === undefined) return response.writeHead(403).end();
      response.setHeader("Content-Type", answer.type ?? "application/json");
      response.end(answer.type ? answer.text : JSON.stringify(answer));
    } catch (error) {
      this.faults.push(error);
      response.writeHead(500).end();
    }
  }

  /** Path -> `{ type, text }`, for scenarios in a browser. */
  files = { "/": { type: "text/html", text: PAGE } };
  #page = (_request, _body, path) => this.files[path];

  #user(request) {
    return request.headers.authorization.replace(/^Bearer /, "");
  }

  /** Everybody may hear everything but what is called forbidden; what is forged is signed wrong. */
  #authorize(request, body) {
    const form = new URLSearchParams(body);
    const [socketId, channel] = [form.get("socket_id"), form.get("channel_name")];
    const user = this.#user(request);
    if (channel.includes("forbidden")) return undefined;
    const sdk = channel.includes("forged") ? this.forger : this.sdk;
    const member = { user_id: user, user_info: info(user) };
    const presence = channel.startsWith("presence-");
    return sdk.authorizeChannel(socketId, channel, presence ? member : undefined);
  }

  #authenticate(request, body) {
    const id = this.#user(request);
    const sdk = id.includes("forged") ? this.forger : this.sdk;
    const watchlist = this.watchlists.get(id);
    const user = { id, user_info: info(id), ...(watchlist && { watchlist }) };
    return sdk.authenticateUser(new URLSearchParams(body).get("socket_id"), user);
  }

  /** Publish as Laravel's `broadcast()->toOthers()` does. */
  async #publish(request, body) {
    const { channel, event, data } = JSON.parse(body);
    const socketId = request.headers["x-socket-id"];
    await this.sdk.trigger(channel, event, data, socketId && { socket_id: socketId });
    return {};
  }

  #receive(request, body) {
    const webhook = this.sdk.webhook({ headers: request.headers, rawBody: body });
    assert.ok(webhook.isValid());
    this.webhooks.push(...webhook.getEvents());
    return {};
  }

  /** Options of pusher-js and of Echo for a user of this application. */
  options(user) {
    const headers = { Authorization: `Bearer ${user}` };
    return {
      wsHost: HOST,
      wsPort: PORT,
      forceTLS: false,
      enabledTransports: ["ws"],
      cluster: "",
      channelAuthorization: {
        endpoint: `${this.url}/broadcasting/auth`,
        transport: "ajax",
        headers,
      },
      userAuthentication: {
        endpoint: `${this.url}/broadcasting/user-auth`,
        transport: "ajax",
        headers,
      },
    };
  }

  /** A user who is connected. */
  async connect(user = fresh("user-")) {
    const person = new Person(this, user, new Pusher(this.key, this.options(user)));
    this.people.push(person);
    await person.isConnected();
    return person;
  }

  /** The Pusher API's answer to a GET. */
  async get(path, params) {
    const response = await this.sdk.get({ path, params });
    assert.equal(response.status, 200);
    return response.json();
  }

  /** Wait until nobody is subscribed to these channels. */
  async areVacant(...channels) {
    for (const channel of channels) {
      const isVacant = async () => !(await this.get(`/channels/${channel}`)).occupied;
      await until(`nobody on ${channel}`, isVacant);
    }
  }

  /** Forget the people of one scenario. */
  disconnect() {
    for (const person of this.people.splice(0)) person.pusher.disconnect();
  }

  async stop() {
    this.disconnect();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
    assert.deepEqual(this.faults, []);
  }
}

/** A user's pusher-js, and each message that came to it: `[event, channel, data, user_id?]`. */
export class Person {
  heard = [];
  pongs = 0;

  constructor(application, id, pusher) {
    this.application = application;
    this.id = id;
    this.pusher = pusher;
    this.own = fresh("sentinel-");
    this.errors = [];
    pusher.connection.bind("error", (error) => this.errors.push(error));
    pusher.connection.bind("message", (message) => this.#hear(message));
  }

  #hear({ event, channel = null, data = null, user_id }) {
    if (event === "pusher:pong") this.pongs += 1;
    // A copy: pusher-js goes on to change what it was given.
    const message = structuredClone([event, channel, data]);
    if (user_id !== undefined) message.push(user_id);
    if (channel !== this.own && !IGNORED.has(event)) this.heard.push(message);
    if (event === "sentinel") this.sentinel = data;
  }

  get socketId() {
    return this.pusher.connection.socket_id;
  }

  async isConnected() {
    await until("a connection", () => this.pusher.connection.state === "connected");
    this.pusher.subscribe(this.own);
    await this.isSubscribed(this.own);
  }

  isSubscribed(channel) {
    return until(`a subscription to ${channel}`, () => this.pusher.channel(channel)?.subscribed);
  }

  /** Subscribe and wait for it; what was heard by then is still to be looked at. */
  async subscribe(channel) {
    const subscription = this.pusher.subscribe(channel);
    await this.isSubscribed(channel);
    return subscription;
  }

  /** Wait until all that the server had for this socket has arrived. */
  async settle() {
    const pongs = this.pongs;
    this.pusher.send_event("pusher:ping", {});
    await until("a pong", () => this.pongs > pongs);
    const sentinel = fresh("");
    await this.application.sdk.trigger(this.own, "sentinel", sentinel);
    await until("the sentinel", () => this.sentinel === sentinel);
  }

  /** These messages came, in this order, and no others. */
  async hears(...expected) {
    const enough = () => this.heard.length >= expected.length;
    await until("enough messages", enough, 10).catch(() => {}); // what came instead says more
    await this.settle();
    assert.deepEqual(this.heard.splice(0), expected);
  }
}

const internal = (name) => `pusher_internal:${name}`;

/** The messages of the server, for `hears`. */
export const messages = {
  subscribed: (channel, data = {}) => [internal("subscription_succeeded"), channel, data],
  present: (channel, ...ids) => {
    const hash = Object.fromEntries(ids.map((id) => [id, info(id)]));
    return messages.subscribed(channel, { presence: { ids, hash, count: ids.length } });
  },
  added: (channel, id) => [internal("member_added"), channel, { user_id: id, user_info: info(id) }],
  removed: (channel, id) => [internal("member_removed"), channel, { user_id: id }],
  count: (channel, count) => [
    internal("subscription_count"),
    channel,
    { subscription_count: count },
  ],
  cacheMiss: (channel) => ["pusher:cache_miss", channel, null],
  signedIn: (id, more = {}) => [
    "pusher:signin_success",
    null,
    { user_data: JSON.stringify({ id, user_info: info(id), ...more }) },
  ],
  watched: (...events) => [
    internal("watchlist_events"),
    null,
    { events: events.map(([name, ...user_ids]) => ({ name, user_ids })) },
  ],
};
