// The rule's samples: messages with what should become of them, run as one types.
import { useRef, useState } from "preact/hooks";
import type { Case, Explanation, Verdict } from "../../api/types";
import { Badge } from "../../components/Badge";
import { Icon } from "../../components/icons";
import { sayUndo } from "../../components/Notices";
import { Panel } from "../../components/Page";
import { Empty } from "../../components/states";
import { CaseDialog } from "./CaseDialog";
import { type Input, inputOfCase } from "./draft";

/** As many as the gateway keeps of one rule. */
const CASES_MAX = 200;

interface Props {
  rule: string;
  cases: Case[];
  verdicts: Map<string, Verdict>;
  readOnly: boolean;
  input: Input;
  explanation: Explanation | null;
  onChange: (cases: Case[]) => void;
  onLoad: (input: Input) => void;
}

export function CasesPanel({ rule, cases, verdicts, readOnly, input, explanation, onChange, onLoad }: Props) {
  const [edited, setEdited] = useState<Case | "new" | null>(null);
  const known = cases.map((one) => verdicts.get(one.id)).filter((one) => one !== undefined);
  const failing = known.filter((one) => one.pass === false).length;
  const passing = known.filter((one) => one.pass === true).length;
  const keep = (sample: Case) => {
    const old = edited === "new" || edited === null ? null : edited.id;
    onChange(old === null ? [...cases, sample] : cases.map((one) => (one.id === old ? sample : one)));
    setEdited(null);
  };
  const latest = useRef(cases);
  latest.current = cases;
  const remove = (sample: Case) => {
    const at = cases.indexOf(sample);
    onChange(cases.filter((one) => one !== sample));
    sayUndo(`The sample ${sample.id} is taken out`, () => onChange([...latest.current.slice(0, at), sample, ...latest.current.slice(at)]));
  };
  return (
    <Panel
      title="Samples"
      tools={
        <>
          <span role="status" class="badges">
            {failing > 0 && <Badge tone="bad">{failing} failing</Badge>}
            {passing > 0 && <Badge tone="good">{passing} passing</Badge>}
          </span>
          {!readOnly && (
            <button type="button" disabled={cases.length >= CASES_MAX} onClick={() => setEdited("new")}>
              <Icon name="plus" /> Keep this message
            </button>
          )}
        </>
      }
    >
      {cases.length === 0 ? (
        <Empty title="No samples yet">
          <p>Keep the message beside with what should become of it: the samples are run at every change, and before a save.</p>
        </Empty>
      ) : (
        <ul class="rows cases">
          {cases.map((sample) => {
            const verdict = verdicts.get(sample.id);
            return (
              <li key={sample.id}>
                <div class="row-head">
                  <VerdictBadge verdict={verdict} />
                  <strong>{sample.id}</strong>
                  <span class="mono faint cut">{sample.topic}</span>
                  <span class="push tools">
                    <button type="button" class="quiet" onClick={() => onLoad(inputOfCase(sample))}>
                      Use<span class="hidden"> {sample.id}</span>
                    </button>
                    {!readOnly && (
                      <>
                        <button type="button" class="quiet" onClick={() => setEdited(sample)}>
                          Edit<span class="hidden"> {sample.id}</span>
                        </button>
                        <button type="button" class="quiet" onClick={() => remove(sample)}>
                          <Icon name="trash" />
                          <span class="hidden">Remove {sample.id}</span>
                        </button>
                      </>
                    )}
                  </span>
                </div>
                <p class="row-more mono">{expectation(sample)}</p>
                {verdict?.pass === false && verdict.why && (
                  <p class="row-more bad-text">
                    <Icon name="cross" size={13} /> {verdict.why}
                  </p>
                )}
              </li>
            );
          })}
        </ul>
      )}
      {edited && (
        <CaseDialog
          sample={edited === "new" ? null : edited}
          taken={cases.filter((one) => one !== edited).map((one) => one.id)}
          rule={rule}
          input={input}
          explanation={explanation}
          onKeep={keep}
          onClose={() => setEdited(null)}
        />
      )}
    </Panel>
  );
}

function VerdictBadge({ verdict }: { verdict: Verdict | undefined }) {
  if (!verdict) return <Badge tone="plain">not run</Badge>;
  if (verdict.pass === null) return <Badge tone="info">{verdict.outcome?.replaceAll("_", " ") ?? "run"}</Badge>;
  return verdict.pass ? <Badge tone="good">passes</Badge> : <Badge tone="bad">fails</Badge>;
}

function expectation(sample: Case): string {
  if (sample.no_match) return "expects no match";
  if (sample.error) return "expects an error";
  if (sample.expect !== undefined) return `expects ${JSON.stringify(sample.expect)}`;
  const others = Object.keys(sample).filter((key) => key.startsWith("expect"));
  return others.length ? `has ${others.join(", ")}` : "expects nothing in particular";
}
