// What the pages of both frameworks have in common: Echo is configured as Laravel's documents do it.

import Pusher from "pusher-js/with-encryption";

/**
 * Offer `window.hooks`, `window.configure(options)` and `window.mount(use)`, which mounts a component
 * that calls `use()` where hooks belong, shows the values that it returns, and gives what unmounts it.
 */
export function offer(hooks, mount) {
  window.hooks = hooks;
  window.configure = (options) => {
    // The hooks bring their own pusher-js, which cannot decrypt; `window.Pusher` means nothing to them.
    hooks.configureEcho({ ...options, Pusher });
    window.echo = hooks.echo();
    window.pusher = window.echo.connector.pusher;
  };
  window.mount = (use) => mount(document.body.appendChild(document.createElement("output")), use);
}
