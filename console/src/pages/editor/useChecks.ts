// Asks the gateway about the rule as one types: is it right, what does it make of the message, of its samples, and of
// what was seen live. Each question waits until the typing rests, and an answer that comes too late is dropped.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { asProblem, type Problem } from "../../api/problem";
import type { Case, Definition, Explanation, LiveMessage, TestedRules, Validated, Verdict } from "../../api/types";
import { type Finds, findsOf, NO_FINDS } from "../../editor/findings";
import { ruleToml } from "../../text/toml";
import { caseOfLive, type Input, sampleOf } from "./draft";

/** Milliseconds of rest until a question is asked. */
const CHECK_AFTER_MS = 250;
const TRY_AFTER_MS = 350;
const COUNT_AFTER_MS = 1_000;

/** Most milliseconds until what keeps changing is asked about all the same: messages don't rest. */
const COUNT_WITHIN_MS = 3_000;

/** Most bytes of payloads that are sent to be counted: a request may have 1 MiB. */
const COUNTED_BYTES_MAX = 600 * 1024;

/** Runs `act` when `key` has rested, or after `mostMs` though it hasn't; `isCurrent` tells it whether its answer is still wanted. */
function useRested(key: string | null, restMs: number, act: (isCurrent: () => boolean) => Promise<void>, mostMs = Infinity): void {
  const latest = useRef(act);
  latest.current = act;
  const waitsSince = useRef<number | null>(null);
  useEffect(() => {
    if (key === null) return;
    let current = true;
    waitsSince.current ??= Date.now();
    const left = waitsSince.current + mostMs - Date.now();
    const timer = window.setTimeout(
      () => {
        waitsSince.current = null;
        void latest.current(() => current);
      },
      Math.max(0, Math.min(restMs, left)),
    );
    return () => {
      current = false;
      window.clearTimeout(timer);
    };
  }, [key, restMs, mostMs]);
}

export interface Checked {
  finds: Finds;
  /** False while the last answer says that the rule is wrong. */
  isValid: boolean;
  /** The text that this is about; the rule may have changed since. */
  text: string;
}

export function useFindings(name: string, definition: Definition | null): Checked {
  const [checked, setChecked] = useState<Checked>({ finds: NO_FINDS, isValid: true, text: "" });
  const rule = definition ? ruleToml(name, definition) : null;
  useRested(rule?.text ?? null, CHECK_AFTER_MS, async (isCurrent) => {
    if (!rule || !definition) return;
    try {
      const validated = await api.post<Validated>(path("rules", "validate"), { text: rule.text });
      if (isCurrent()) setChecked({ finds: findsOf(validated, rule, definition.sql), isValid: validated.is_valid, text: rule.text });
    } catch (thrown) {
      const finds: Finds = { diagnostics: [], elsewhere: new Map([["", [{ severity: "error", text: asProblem(thrown).message }]]]) };
      if (isCurrent()) setChecked({ finds, isValid: false, text: rule.text });
    }
  });
  return checked;
}

export interface Tried {
  explanation: Explanation | null;
  problem: Problem | null;
}

export function useExplanation(name: string, definition: Definition | null, input: Input): Tried {
  const [tried, setTried] = useState<Tried>({ explanation: null, problem: null });
  const text = definition ? ruleToml(name, definition).text : null;
  const message = sampleOf(input);
  const key = text === null || input.topic === "" ? null : `${text}\n${JSON.stringify(message)}`;
  useRested(key, TRY_AFTER_MS, async (isCurrent) => {
    try {
      const answer = await api.post<{ explanations: Explanation[] }>(path("rules", "explain"), { text, message });
      if (isCurrent()) setTried({ explanation: answer.explanations[0] ?? null, problem: null });
    } catch (thrown) {
      if (isCurrent()) setTried((before) => ({ ...before, problem: asProblem(thrown) }));
    }
  });
  return tried;
}

export function runCases(name: string, definition: Definition, cases: Case[]): Promise<TestedRules> {
  const named = cases.map((one) => ({ ...one, rule: name }));
  return api.post<TestedRules>(path("rules", "test"), { cases: JSON.stringify(named), text: ruleToml(name, definition).text });
}

export function useVerdicts(name: string, definition: Definition | null, cases: Case[]): Map<string, Verdict> {
  const [verdicts, setVerdicts] = useState<Map<string, Verdict>>(new Map());
  const key = definition && cases.length ? `${ruleToml(name, definition).text}\n${JSON.stringify(cases)}` : null;
  useRested(key, TRY_AFTER_MS, async (isCurrent) => {
    if (!definition) return;
    try {
      const tested = await runCases(name, definition, cases);
      if (isCurrent()) setVerdicts(new Map(tested.verdicts.map((verdict) => [verdict.id, verdict])));
    } catch {
      // The rule is refused as a whole; its findings say why.
      if (isCurrent()) setVerdicts(new Map());
    }
  });
  return verdicts;
}

export interface Selectivity {
  matched: number;
  of: number;
}

/** How many of the last messages the rule, as it is written, would select. */
export function useSelectivity(name: string, definition: Definition | null, messages: LiveMessage[]): Selectivity | null {
  const [counted, setCounted] = useState<Selectivity | null>(null);
  const newest = messages.at(-1)?.received_at_ms ?? 0;
  const key = definition && messages.length ? `${definition.sql}\n${messages.length}\n${newest}` : null;
  const statement = useRef("");
  statement.current = definition?.sql ?? "";
  const count = async () => {
    if (!definition) return;
    const cases = bounded(messages).map((message, index) => caseOfLive(`m${index}`, name, message));
    // An answer about this statement is wanted though messages came meanwhile.
    const isWanted = () => statement.current === definition.sql;
    try {
      const tested = await runCases(name, { ...definition, actions: [{ name: "none", type: "log" }], error_action: undefined } as Definition, cases);
      const matched = tested.verdicts.filter((verdict) => verdict.outcome === "output" || verdict.outcome === "no_output").length;
      if (isWanted()) setCounted({ matched, of: cases.length });
    } catch {
      if (isWanted()) setCounted(null);
    }
  };
  useRested(key, COUNT_AFTER_MS, count, COUNT_WITHIN_MS);
  return counted;
}

function bounded(messages: LiveMessage[]): LiveMessage[] {
  const kept: LiveMessage[] = [];
  let size = 0;
  for (let index = messages.length - 1; index >= 0; index -= 1) {
    const message = messages[index];
    if (!message || message.payload.cut) continue;
    // JSON in JSON in JSON: quotes take two escapes, other characters may take six.
    size += 2 * (message.payload.text?.length ?? message.payload.bytes) + 400;
    if (size > COUNTED_BYTES_MAX) break;
    kept.push(message);
  }
  return kept.reverse();
}
