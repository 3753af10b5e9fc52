// Keeps a message as a sample, or changes what is expected of one.
import { useState } from "preact/hooks";
import type { Case, Explanation } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { caseOf, type Input } from "./draft";

type Expectation = "output" | "no_match" | "error" | "open";

interface Props {
  /** Null: the message of the input pane is to be kept. */
  sample: Case | null;
  taken: string[];
  rule: string;
  input: Input;
  explanation: Explanation | null;
  onKeep: (sample: Case) => void;
  onClose: () => void;
}

export function CaseDialog({ sample, taken, rule, input, explanation, onKeep, onClose }: Props) {
  const [id, setId] = useState(sample?.id ?? "");
  const [kind, setKind] = useState<Expectation>(sample ? kindOf(sample) : kindOfOutcome(explanation));
  const [text, setText] = useState(sample?.expect !== undefined ? JSON.stringify(sample.expect, null, 2) : outputText(explanation));
  const isTaken = taken.includes(id.trim());
  const fault = kind === "output" ? jsonFault(text) : null;

  const keep = (event: Event) => {
    event.preventDefault();
    if (!id.trim() || isTaken || fault) return;
    const base: Case = sample ? { ...sample, id: id.trim() } : caseOf(id.trim(), rule, input);
    delete base.expect;
    delete base.no_match;
    delete base.error;
    if (kind === "output") base.expect = JSON.parse(text);
    if (kind === "no_match") base.no_match = true;
    if (kind === "error") base.error = true;
    onKeep(base);
  };

  return (
    <Dialog title={sample ? `Sample ${sample.id}` : "Keep this message as a sample"} onClose={onClose}>
      <form onSubmit={keep}>
        <label class="field">
          <span>Name of the sample</span>
          <input value={id} maxLength={200} onInput={(event) => setId(event.currentTarget.value)} />
        </label>
        {isTaken && <p class="hint complaint-soft">Another sample has this name.</p>}
        <label class="field">
          <span>What should become of it</span>
          <select value={kind} onChange={(event) => setKind(event.currentTarget.value as Expectation)}>
            <option value="output">This output</option>
            <option value="no_match">No match</option>
            <option value="error">An error</option>
            <option value="open">Nothing in particular</option>
          </select>
        </label>
        {kind === "output" && (
          <label class="field">
            <span>Expected output, JSON</span>
            <textarea class="mono" rows={7} value={text} spellcheck={false} onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        )}
        {fault && <p class="hint complaint-soft">Not yet JSON: {fault}</p>}
        <div class="dialog-foot">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={!id.trim() || isTaken || fault !== null}>
            Keep
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function kindOf(sample: Case): Expectation {
  if (sample.no_match) return "no_match";
  if (sample.error) return "error";
  return sample.expect === undefined ? "open" : "output";
}

function kindOfOutcome(explanation: Explanation | null): Expectation {
  if (explanation?.outcome === "error") return "error";
  return explanation?.outcome === "output" ? "output" : "no_match";
}

function outputText(explanation: Explanation | null): string {
  const output = explanation?.output;
  const first = (Array.isArray(output) ? output[0] : output) as { json?: unknown } | null | undefined;
  return first && "json" in first ? JSON.stringify(first.json, null, 2) : "{}";
}

function jsonFault(text: string): string | null {
  try {
    JSON.parse(text);
    return null;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : "unreadable";
  }
}
