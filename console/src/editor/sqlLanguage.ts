// How a statement is coloured. Keywords and functions come from the gateway, so that the editor knows no other language
// than the gateway does; reading is by token, since what a statement means is the gateway's to say.
import { HighlightStyle, StreamLanguage, type StreamParser, syntaxHighlighting } from "@codemirror/language";
import type { Extension } from "@codemirror/state";
import { tags } from "@lezer/highlight";
import type { Language } from "../api/types";

interface State {
  inComment: boolean;
}

function parser(language: Language): StreamParser<State> {
  const keywords = new Set(language.keywords.map((word) => word.toLowerCase()));
  const functions = new Set(language.functions.flatMap((one) => [one.name, ...(one.aliases ?? [])]).map((name) => name.toLowerCase()));
  const atoms = new Set(["true", "false", "null", "undefined"]);
  return {
    name: "rules-sql",
    startState: () => ({ inComment: false }),
    token(stream, state) {
      if (state.inComment) {
        if (stream.skipTo("*/")) {
          stream.match("*/");
          state.inComment = false;
        } else stream.skipToEnd();
        return "comment";
      }
      if (stream.eatSpace()) return null;
      if (stream.match("--")) {
        stream.skipToEnd();
        return "comment";
      }
      if (stream.match("/*")) {
        state.inComment = true;
        return "comment";
      }
      if (stream.match(/^'(?:[^']|'')*'?/) || stream.match(/^"(?:[^"]|"")*"?/)) return "string";
      if (stream.match(/^`[^`]*`?/)) return "propertyName";
      if (stream.match(/^\d+(\.\d+)?([eE][-+]?\d+)?/)) return "number";
      if (stream.match(/^@[A-Za-z_]\w*/)) return "variableName";
      const word = stream.match(/^[A-Za-z_$][\w$]*/) as RegExpMatchArray | null;
      if (word) {
        const name = word[0].toLowerCase();
        if (stream.match(/^\s*\(/, false) && functions.has(name)) return "function";
        if (atoms.has(name)) return "atom";
        if (keywords.has(name)) return "keyword";
        return "propertyName";
      }
      stream.next();
      return "operator";
    },
    languageData: { commentTokens: { line: "--" }, closeBrackets: { brackets: ["(", "[", "{", "'", '"'] } },
    tokenTable: { function: tags.function(tags.variableName) },
  };
}

const colours = HighlightStyle.define([
  { tag: tags.keyword, class: "sql-keyword" },
  { tag: tags.function(tags.variableName), class: "sql-function" },
  { tag: tags.string, class: "sql-string" },
  { tag: tags.number, class: "sql-number" },
  { tag: tags.atom, class: "sql-number" },
  { tag: tags.comment, class: "sql-comment" },
  { tag: tags.variableName, class: "sql-variable" },
  { tag: tags.propertyName, class: "sql-field" },
  { tag: tags.operator, class: "sql-operator" },
]);

export function sqlLanguage(language: Language): Extension {
  return [StreamLanguage.define(parser(language)), syntaxHighlighting(colours)];
}
