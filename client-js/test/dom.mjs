/**
 * A document for React and Vue, in Node. Import it before them.
 *
 * Plain JavaScript: the types of happy-dom are 500 files, more than all others that the checks read.
 */

import { Window } from "happy-dom";

const window = new Window({ url: "http://localhost/" });
const NAMES = [
  ...["document", "navigator", "Node", "Element", "HTMLElement", "SVGElement", "Event"],
  ...["HTMLIFrameElement"],
];

const place = {
  window,
  ...Object.fromEntries(NAMES.map((name) => [name, Reflect.get(window, name)])),
};
for (const [name, value] of Object.entries(place)) {
  // Newer versions of Node have some of them, which cannot be assigned.
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}
