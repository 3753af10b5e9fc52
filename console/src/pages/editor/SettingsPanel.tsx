// What a rule says beside its statement and its actions: what it is for, tags, whose dialect, whose rights.
import type { Definition } from "../../api/types";
import { Panel } from "../../components/Page";
import { RULE_FIELDS } from "./actionForms";
import { Fields } from "./Fields";

/** Seen at once. */
const FIRST = ["description", "tags"];

interface Props {
  definition: Definition;
  readOnly: boolean;
  onChange: (definition: Definition) => void;
}

export function SettingsPanel({ definition, readOnly, onChange }: Props) {
  const put = (key: string, value: unknown) => {
    const changed = { ...definition, [key]: value };
    if (value === undefined) delete changed[key];
    onChange(changed);
  };
  const first = RULE_FIELDS.filter((field) => FIRST.includes(field.key));
  const more = RULE_FIELDS.filter((field) => !FIRST.includes(field.key));
  const isSet = more.some((field) => definition[field.key] !== undefined);
  return (
    <Panel title="About the rule">
      <fieldset class="action-form" disabled={readOnly}>
        <legend class="hidden">About the rule</legend>
        <Fields fields={first} values={definition} readOnly={readOnly} onChange={put} />
        <details class="rest" open={isSet}>
          <summary>More: {more.map((field) => field.label.toLowerCase()).join(", ")}</summary>
          <Fields fields={more} values={definition} readOnly={readOnly} onChange={put} />
        </details>
      </fieldset>
    </Panel>
  );
}
