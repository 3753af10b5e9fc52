// What is asked before a save goes through: samples fail, or somebody else was faster.
import type { Definition, Rule, Verdict } from "../../api/types";
import { Confirm, Dialog } from "../../components/Dialog";
import { Diff } from "../../components/Diff";
import { Time } from "../../components/Time";
import { plural } from "../../text/format";
import { ruleToml } from "../../text/toml";

export type SaveQuestion =
  | { kind: "failing"; failing: Verdict[]; of: number }
  | { kind: "conflict"; rule: Rule | null; etag: string | null }
  | { kind: "taken"; rule: Rule; etag: string | null };

interface Props {
  question: SaveQuestion;
  mine: Definition;
  onAnyway: (etag: string | null) => Promise<void>;
  onTheirs: () => void;
  /** Makes the rule anew that somebody has removed. */
  onAnew: () => Promise<void>;
  onClose: () => void;
}

export function SaveQuestions({ question, mine, onAnyway, onTheirs, onAnew, onClose }: Props) {
  if (question.kind === "failing") {
    return (
      <Confirm title="Samples fail" act="Save anyway" dangerous onConfirm={() => onAnyway(null)} onClose={onClose}>
        <p>
          {question.failing.length} of {plural(question.of, "sample")} would not come out as expected. The rule is not saved.
        </p>
        <ul class="rows">
          {question.failing.map((verdict) => (
            <li key={verdict.id}>
              <strong>{verdict.id}</strong>
              <p class="row-more">{verdict.why}</p>
            </li>
          ))}
        </ul>
      </Confirm>
    );
  }
  const { rule, etag } = question;
  if (question.kind === "taken") {
    const isOfFile = question.rule.summary.owner === "file";
    const { name } = question.rule.summary;
    return (
      <Dialog title="The name is taken" onClose={onClose} wide>
        <p>
          There is a rule {name} already{isOfFile && <>, in the file <span class="mono">{question.rule.summary.file}</span></>}. From that one to yours:
        </p>
        <Diff before={ruleToml(name, question.rule.definition).text} after={ruleToml(name, mine).text} />
        <div class="dialog-foot">
          <button type="button" onClick={onClose}>
            Choose another name
          </button>
          {!isOfFile && (
            <button type="button" class="danger" onClick={() => void onAnyway(etag)}>
              Save mine over it
            </button>
          )}
        </div>
      </Dialog>
    );
  }
  if (!rule) {
    return (
      <Dialog title="The rule is gone" onClose={onClose}>
        <p>Somebody has removed it meanwhile. What is in the editor can be saved as a new rule of the same name.</p>
        <div class="dialog-foot">
          <button type="button" onClick={onClose}>
            Go on editing
          </button>
          <button type="button" class="primary" onClick={() => void onAnew()}>
            Make it anew
          </button>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title="Somebody was faster" onClose={onClose} wide>
      <p>
        <strong>{rule.summary.author ?? "Somebody"}</strong> saved version {rule.summary.version} at <Time ms={rule.summary.changed_at_ms} />,
        after you had opened the rule. From theirs to yours:
      </p>
      <Diff before={ruleToml(rule.summary.name, rule.definition).text} after={ruleToml(rule.summary.name, mine).text} />
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>
          Go on editing
        </button>
        <button type="button" onClick={onTheirs}>
          Take theirs
        </button>
        <button type="button" class="danger" onClick={() => void onAnyway(etag)}>
          Save mine over it
        </button>
      </div>
    </Dialog>
  );
}
