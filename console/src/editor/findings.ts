// What the gateway finds wrong with a rule file, as places in its statement.
import type { Diagnostic } from "@codemirror/lint";
import type { Finding, Validated } from "../api/types";
import type { RuleText } from "../text/toml";

export interface Finds {
  /** In the statement. */
  diagnostics: Diagnostic[];
  /** By action; under "" what belongs to none and isn't in the statement. */
  elsewhere: Map<string, { severity: "error" | "warning"; text: string }[]>;
}

export const NO_FINDS: Finds = { diagnostics: [], elsewhere: new Map() };

export function findsOf(validated: Validated, rule: RuleText, sql: string): Finds {
  const finds: Finds = { diagnostics: [], elsewhere: new Map() };
  const lines = sql.split("\n");
  const add = (finding: Finding, severity: "error" | "warning") => {
    const line = (finding.line ?? 0) - rule.sqlLine;
    const text = lines[line];
    if (!finding.action && finding.line && text !== undefined) {
      const start = lines.slice(0, line).reduce((sum, one) => sum + one.length + 1, 0);
      const column = columnOf(rule.text.split("\n")[finding.line - 1] ?? "", text, Math.max(0, (finding.column ?? 1) - 1));
      const from = start + unitsOf(text, column);
      const to = Math.min(sql.length, Math.max(from + 1, start + unitsOf(text, column + markedLength(finding.detail))));
      finds.diagnostics.push({ from: Math.min(from, to), to, severity, source: finding.code ?? "", message: messageOf(finding) });
      return;
    }
    const key = finding.action ?? "";
    finds.elsewhere.set(key, [...(finds.elsewhere.get(key) ?? []), { severity, text: messageOf(finding) }]);
  };
  for (const fault of validated.faults) add(fault, "error");
  for (const warning of validated.warnings) add(warning, "warning");
  return finds;
}

/** The column of the statement's line for one of the file's, both from 0: in the file some characters may be written as escapes. */
function columnOf(fileLine: string, line: string, fileColumn: number): number {
  if (fileLine === line) return fileColumn;
  const written = [...fileLine];
  let column = 0;
  for (let at = 0; at < Math.min(fileColumn, written.length); column += 1) {
    at += written[at] !== "\\" ? 1 : written[at + 1] === "u" ? 6 : 2;
  }
  return column;
}

/** How long so many characters of a line are as the editor counts: one beyond the first 65,536 is two to it. */
function unitsOf(text: string, characters: number): number {
  let units = 0;
  let left = characters;
  for (const character of text) {
    if (left-- <= 0) break;
    units += character.length;
  }
  return units;
}

/** The carets under the statement tell how long the place is. */
function markedLength(detail: string | null | undefined): number {
  return /\^+/.exec(detail ?? "")?.[0].length ?? 1;
}

/** The message without its code, which stands beside it, and with the help where the message doesn't say it already. */
export function messageOf(finding: { message: string; detail?: string | null; help?: string | null }): string {
  const message = finding.message.replace(/\[R\d{4}\] /, "");
  const help = /help: (.*)/.exec(finding.detail ?? finding.help ?? "")?.[1]?.trim();
  return help && !message.includes(help) ? `${message}: ${help}` : message;
}
