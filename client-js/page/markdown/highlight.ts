/** Colours for code, in a file of its own: it is loaded when the first code is shown. */

import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import csharp from "highlight.js/lib/languages/csharp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import dockerfile from "highlight.js/lib/languages/dockerfile";
import go from "highlight.js/lib/languages/go";
import ini from "highlight.js/lib/languages/ini";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import php from "highlight.js/lib/languages/php";
import python from "highlight.js/lib/languages/python";
import ruby from "highlight.js/lib/languages/ruby";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { createLowlight } from "lowlight";

import { element, type VNode } from "./nodes.js";

/** Longer code stays plain: it would hold up the page. */
const MAX_CODE = 50_000;

const lowlight = createLowlight({
  ...{ bash, c, cpp, csharp, css, diff, dockerfile, go, ini, java, javascript, json, php },
  ...{ python, ruby, rust, sql, typescript, xml, yaml },
});

type Found = ReturnType<typeof lowlight.highlight>["children"][number];

/** The code as nodes with classes; null for a language that is not known here. */
export function highlight(language: string, code: string): readonly VNode[] | null {
  if (code.length > MAX_CODE || !lowlight.registered(language)) return null;
  return lowlight.highlight(language, code).children.flatMap(nodes);
}

function nodes(found: Found): readonly VNode[] {
  if (found.type === "text") return [found.value];
  if (found.type !== "element") return [];
  const { className } = found.properties;
  const classes = Array.isArray(className) ? className.join(" ") : "";
  return [element("span", { class: classes }, found.children.flatMap(nodes))];
}
