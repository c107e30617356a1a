/** What is shown, as plain data, and how it becomes DOM. There is no way from a text to HTML here. */

export interface ElementNode {
  readonly tag: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly VNode[];
}

/** A string is text. */
export type VNode = string | ElementNode;

/** The same for the same arguments, so that what did not change can be told by its identity. */
export function element(
  tag: string,
  attributes: Readonly<Record<string, string>> = {},
  children: readonly VNode[] = [],
): ElementNode {
  return { tag, attributes, children };
}

/** All text of nodes, in order. */
export function textOf(nodes: readonly VNode[]): string {
  return nodes.map((node) => (typeof node === "string" ? node : textOf(node.children))).join("");
}

/**
 * Make the children of `parent`, which are `before`, those that `after` says.
 *
 * Elements that stay keep their identity, and a text that grew is appended to: a selection, the focus, and a scrolled
 * block of code survive.
 */
export function patch(parent: Element, before: readonly VNode[], after: readonly VNode[]): void {
  for (const [index, node] of after.entries()) {
    const old = before[index];
    const child = parent.childNodes[index];
    if (old === node && child) continue;
    if (old === undefined || !child) parent.append(create(node));
    else if (!update(child, old, node)) child.replaceWith(create(node));
  }
  while (parent.childNodes.length > after.length) parent.lastChild?.remove();
}

/** Change `child` in place; false if it has to be another one. */
function update(child: ChildNode, old: VNode, node: VNode): boolean {
  if (typeof old === "string" || typeof node === "string") {
    if (typeof old !== typeof node) return false;
    setText(child as Text, node as string);
    return true;
  }
  if (old.tag !== node.tag || !sameNames(old.attributes, node.attributes)) return false;
  for (const [name, value] of Object.entries(node.attributes)) {
    if (old.attributes[name] !== value) (child as Element).setAttribute(name, value);
  }
  patch(child as Element, old.children, node.children);
  return true;
}

function setText(node: Text, text: string): void {
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

const sameNames = (one: object, other: object): boolean =>
  Object.keys(one).join() === Object.keys(other).join();

function create(node: VNode): Node {
  if (typeof node === "string") return document.createTextNode(node);
  const made = document.createElement(node.tag);
  for (const [name, value] of Object.entries(node.attributes)) made.setAttribute(name, value);
  for (const child of node.children) made.append(create(child));
  return made;
}
