// A rule as TOML: what is sent to be checked before it is saved, and what "copy as TOML" gives.
import type { Definition } from "../api/types";

const BARE = /^[A-Za-z0-9_-]+$/;

/** Where the statement begins in what `ruleToml` makes, so that places in the file become places in the statement. */
export interface RuleText {
  text: string;
  /** Line of the file, from 1, that holds the statement's first line. */
  sqlLine: number;
}

export function ruleToml(name: string, definition: Definition): RuleText {
  const { actions, error_action: errorAction, sql, ...rest } = definition;
  const head = `rules.${key(name)}`;
  const lines = [`[${head}]`];
  lines.push(`sql = ${multiline(sql)}`);
  const sqlLine = lines.length + 1;
  for (const [member, value] of Object.entries(rest)) {
    if (value !== undefined && value !== null) lines.push(`${key(member)} = ${inline(value)}`);
  }
  for (const action of actions) {
    lines.push("", `[[${head}.actions]]`, ...members(action));
  }
  if (errorAction) lines.push("", `[${head}.error_action]`, ...members(errorAction));
  return { text: `${lines.join("\n")}\n`, sqlLine };
}

function members(table: Record<string, unknown>): string[] {
  return Object.entries(table)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([member, value]) => `${key(member)} = ${inline(value)}`);
}

function key(name: string): string {
  return BARE.test(name) ? name : string(name);
}

/** A string over several lines; literal where the text allows it, so that columns stay what they are. */
function multiline(text: string): string {
  if (!text.includes("'''") && !hasControls(text)) return `'''\n${text}\n'''`;
  const escaped = text
    .replaceAll("\\", "\\\\")
    .replaceAll('"', '\\"')
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, unicode);
  return `"""\n${escaped}"""`;
}

function hasControls(text: string): boolean {
  return /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(text);
}

function unicode(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function string(text: string): string {
  return JSON.stringify(text).replaceAll("\u007f", "\\u007f");
}

function inline(value: unknown): string {
  if (typeof value === "string") return string(value);
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (Array.isArray(value)) return `[${value.map(inline).join(", ")}]`;
  if (value && typeof value === "object") {
    const inner = Object.entries(value)
      .filter(([, member]) => member !== undefined && member !== null)
      .map(([name, member]) => `${key(name)} = ${inline(member)}`);
    return inner.length ? `{ ${inner.join(", ")} }` : "{}";
  }
  return '""';
}
