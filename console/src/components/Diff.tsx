// Two texts as one with what was taken out and put in; signs in front say it as well as colours.
import { diffLines } from "../text/diff";

const SIGNS = { same: " ", removed: "−", added: "+" } as const;
const WORDS = { same: "", removed: "removed: ", added: "added: " } as const;

export function Diff({ before, after }: { before: string; after: string }) {
  const lines = diffLines(before.trimEnd(), after.trimEnd());
  if (lines.every((line) => line.kind === "same")) return <p class="faint">No difference.</p>;
  return (
    <pre class="diff" tabIndex={0}>
      {lines.map((line, index) => (
        <span key={index} class={`diff-line ${line.kind}`}>
          <span aria-hidden="true">{SIGNS[line.kind]} </span>
          <span class="hidden">{WORDS[line.kind]}</span>
          {line.text}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}
