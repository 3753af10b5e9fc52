// What the editor offers at the cursor: topics inside FROM's strings, fields of payloads that were seen there, functions
// with their signature, keywords.
import type { Completion, CompletionContext, CompletionResult, CompletionSource } from "@codemirror/autocomplete";
import type { EditorView } from "@codemirror/view";
import type { Language, LanguageFunction } from "../api/types";
import { filtersOf } from "../text/topics";
import { fieldsOf, type Seen, topicsOf } from "./seen";

export interface Known {
  language: Language;
  seen: Seen;
}

/** `known` is asked at each completion: what was seen grows while one types. */
export function completions(known: () => Known): CompletionSource {
  return (context) => {
    const before = context.state.sliceDoc(0, context.pos);
    const string = openString(before);
    if (string) return isFilter(before.slice(0, string.start)) ? topicOptions(known().seen, string) : null;
    return wordOptions(context, known());
  };
}

interface OpenString {
  start: number;
  text: string;
}

/** The string that the cursor is in; comments aside, quotes come in pairs. */
function openString(before: string): OpenString | null {
  let quote = "";
  let start = 0;
  for (let index = 0; index < before.length; index += 1) {
    const character = before[index] ?? "";
    if (quote) {
      if (character === quote) quote = "";
    } else if (character === "-" && before[index + 1] === "-") {
      const end = before.indexOf("\n", index);
      if (end < 0) return null;
      index = end;
    } else if (character === "'" || character === '"') {
      quote = character;
      start = index;
    }
  }
  return quote ? { start, text: before.slice(start + 1) } : null;
}

function isFilter(before: string): boolean {
  return /\bfrom\s+(?:(?:'[^']*'|"[^"]*")\s*,\s*)*$/i.test(before);
}

function topicOptions(seen: Seen, string: OpenString): CompletionResult {
  const topics = topicsOf(seen);
  const retained = new Set(seen.retained);
  const parents = new Set<string>();
  for (const topic of topics) {
    const levels = topic.split("/");
    for (let end = 1; end < levels.length; end += 1) parents.add(`${levels.slice(0, end).join("/")}/#`);
  }
  const options: Completion[] = [
    ...topics.map((topic) => ({ label: topic, type: "topic", detail: retained.has(topic) ? "retained" : "seen live", boost: 1 })),
    ...[...parents].sort().map((filter) => ({ label: filter, type: "topic", detail: "all below" })),
  ];
  return { from: string.start + 1, options, validFor: /^[^'"]*$/ };
}

function wordOptions(context: CompletionContext, { language, seen }: Known): CompletionResult | null {
  const word = context.matchBefore(/[\w.`@$]*/);
  if (!word || (word.from === word.to && !context.explicit)) return null;
  const filters = filtersOf(context.state.doc.toString());
  const fields = fieldsOf(seen, filters).map(
    (field): Completion => ({
      label: field.path,
      type: "field",
      detail: `${field.type}, such as ${field.example}`,
      boost: 2,
    }),
  );
  const isPath = word.text.includes(".");
  const options = isPath ? fields : [...fields, ...language.functions.flatMap(functionOptions), ...language.keywords.map(keywordOption)];
  return options.length ? { from: word.from, options, validFor: /^[\w.`@$]*$/ } : null;
}

function keywordOption(keyword: string): Completion {
  return { label: keyword.toUpperCase(), type: "keyword" };
}

/** The function under its name, and below that under each other name that it has: who knows that one finds it. */
function functionOptions(one: LanguageFunction): Completion[] {
  return [one.name, ...(one.aliases ?? [])].map((name, index) => ({
    label: name,
    type: "function",
    detail: index > 0 ? `= ${one.signature}` : one.signature.startsWith(name) ? one.signature.slice(name.length) : one.signature,
    boost: index > 0 ? -1 : 0,
    info: () => help(one),
    apply: (view, _completion, from, to) => applyFunction(view, name, from, to),
  }));
}

/** Writes `name()` with the cursor between the brackets; only the name where a bracket follows already. */
function applyFunction(view: EditorView, name: string, from: number, to: number): void {
  const hasBracket = view.state.sliceDoc(to, to + 1) === "(";
  view.dispatch({
    changes: { from, to, insert: hasBracket ? name : `${name}()` },
    selection: { anchor: from + name.length + 1 },
    userEvent: "input.complete",
  });
}

function help(one: LanguageFunction): HTMLElement {
  const box = document.createElement("div");
  box.className = "help";
  const add = (tag: string, text: string) => {
    const element = document.createElement(tag);
    element.textContent = text;
    box.append(element);
  };
  add("code", one.signature);
  add("p", one.summary);
  if (one.example) add("code", `${one.example} → ${one.result ?? "undefined"}`);
  return box;
}
