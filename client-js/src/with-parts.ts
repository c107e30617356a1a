/** `legato-client/parts`: reasoning, tool calls with approvals, citations. Give `parts` to the chat; show what `blocks` gives. */

export { answerTo, isUndecided } from "./approvals.js";
export { parts } from "./part-rules.js";
export type {
  CitationPart,
  Part,
  PartEvent,
  ReasoningPart,
  StepPart,
  ToolPart,
  ToolState,
  Usage,
} from "./parts.js";
export type { Answer } from "./reply.js";
export {
  blocks,
  deadline,
  inputText,
  isQuiet,
  isThinking,
  outputText,
  pretty,
  reasoningTitle,
  sources,
  toolState,
  toolWords,
  webAddress,
  type Block,
  type Run,
  type Source,
  type TextBlock,
  type ToolView,
} from "./view.js";
