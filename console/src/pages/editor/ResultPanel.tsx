// What becomes of the message: the outcome in words, the output, what each action would send, and the tree of why.
import type { ExplainedAction, Explanation, Rendered } from "../../api/types";
import { Badge, type Tone } from "../../components/Badge";
import { Panel } from "../../components/Page";
import { Empty } from "../../components/states";
import { hexOfBase64, pretty } from "../../text/payload";
import { Evaluation } from "./Evaluation";
import type { Tried } from "./useChecks";

const OUTCOMES: Record<string, { tone: Tone; text: string }> = {
  output: { tone: "good", text: "Matches" },
  no_match: { tone: "plain", text: "No match" },
  other_topic: { tone: "plain", text: "Other topic" },
  no_output: { tone: "warn", text: "Matches without output" },
  error: { tone: "bad", text: "Fails" },
};

export function ResultPanel({ tried }: { tried: Tried }) {
  const { explanation, problem } = tried;
  if (!explanation) {
    return (
      <Panel title="Result">
        {problem ? <p class="finding error">{problem.detail || problem.title}</p> : <Empty title="Nothing tried yet" />}
      </Panel>
    );
  }
  const outcome = OUTCOMES[explanation.outcome] ?? { tone: "plain" as Tone, text: explanation.outcome };
  return (
    <Panel
      title="Result"
      class={problem ? "stale" : "result"}
      tools={
        <span role="status">
          <Badge tone={outcome.tone}>{outcome.text}</Badge>
        </span>
      }
    >
      {problem && <p class="hint">The rule does not compile just now; this is what the last one that did made of it.</p>}
      <Output explanation={explanation} />
      <h3>Why</h3>
      <Evaluation explanation={explanation} />
      {explanation.actions.length > 0 && <h3>Actions</h3>}
      {explanation.actions.map((action) => (
        <WouldSend key={action.name} action={action} />
      ))}
    </Panel>
  );
}

function Output({ explanation }: { explanation: Explanation }) {
  if (explanation.error) return <p class="finding error">{words(explanation.error)}</p>;
  const rows = rowsOf(explanation.output);
  if (rows.length === 0) return null;
  return (
    <div class="output">
      {rows.map((row, index) => (
        <pre key={index} tabIndex={0} aria-label={rows.length > 1 ? `Output row ${index + 1}` : "Output"}>
          {row}
        </pre>
      ))}
    </div>
  );
}

export function rowsOf(output: unknown): string[] {
  const list = Array.isArray(output) ? output : output === null || output === undefined ? [] : [output];
  return list.map((one) => {
    const row = one as { json?: unknown; base64?: string; text?: string };
    if ("json" in row) return JSON.stringify(row.json, null, 2);
    if (row.text !== undefined) return pretty(row.text);
    if (row.base64 !== undefined) return hexOfBase64(row.base64);
    return JSON.stringify(one, null, 2);
  });
}

function WouldSend({ action }: { action: ExplainedAction }) {
  const fields = Object.entries(action.would_send ?? {});
  const failures = action.parameters.filter((parameter) => parameter.error);
  const isRequest = action.would_send?.["method"] && action.would_send["url"];
  const shown = isRequest ? fields.filter(([name]) => name !== "method" && name !== "url") : fields;
  return (
    <section class="would-send">
      <header>
        <strong>{action.name}</strong> <span class="tag">{action.type}</span>
        <span class="would">would send</span>
      </header>
      {isRequest && (
        <p class="mono request-line">
          <strong>{shownText(action.would_send?.["method"])}</strong> {shownText(action.would_send?.["url"])}
        </p>
      )}
      {shown.length > 0 && (
        <dl>
          {shown.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd class="mono">{pretty(shownText(value))}</dd>
            </div>
          ))}
        </dl>
      )}
      {action.error ? <p class="finding error">{words(action.error)}</p> : null}
      {failures.map((parameter) => (
        <p class="finding error" key={parameter.name}>
          {parameter.name}: {words(parameter.error)}
        </p>
      ))}
    </section>
  );
}

export function shownText(value: Rendered | undefined | null): string {
  if (!value) return "";
  return value.text ?? value.hex ?? (value.base64 !== undefined ? hexOfBase64(value.base64) : "");
}

function words(error: unknown): string {
  if (typeof error === "string") return error;
  const { message } = (error ?? {}) as { message?: string };
  return message ?? JSON.stringify(error);
}
