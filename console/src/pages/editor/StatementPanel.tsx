// The statement with its findings, and how much of what was seen it selects.
import type { Definition, Language } from "../../api/types";
import { Icon } from "../../components/icons";
import { Panel } from "../../components/Page";
import type { Seen } from "../../editor/seen";
import { SqlEditor } from "../../editor/SqlEditor";
import { count, plural } from "../../text/format";
import type { Checked, Selectivity } from "./useChecks";

interface Props {
  definition: Definition;
  language: Language;
  seen: Seen;
  checked: Checked;
  readOnly: boolean;
  selectivity: Selectivity | null;
  onChange: (definition: Definition) => void;
  onSave: () => void;
}

export function StatementPanel({ definition, language, seen, checked, readOnly, selectivity, onChange, onSave }: Props) {
  const { diagnostics, elsewhere } = checked.finds;
  const others = elsewhere.get("") ?? [];
  return (
    <Panel
      title="Statement"
      class="statement"
      tools={
        selectivity && (
          <span class="selectivity">
            matched {count(selectivity.matched)} of the last {plural(selectivity.of, "message")}
          </span>
        )
      }
    >
      <SqlEditor
        initial={definition.sql}
        language={language}
        seen={seen}
        diagnostics={diagnostics}
        readOnly={readOnly}
        onChange={(sql) => onChange({ ...definition, sql })}
        onSave={onSave}
      />
      <div class="findings" role="status" aria-label="Findings">
        {diagnostics.map((one) => (
          <p class={`finding ${one.severity}`} key={`${one.from} ${one.message}`}>
            <Icon name={one.severity === "error" ? "cross" : "warning"} size={13} />
            <span class="finding-place">{place(definition.sql, one.from)}</span>
            {one.source && <code>{one.source}</code>}
            <span>{one.message}</span>
          </p>
        ))}
        {others.map((one) => (
          <p class={`finding ${one.severity}`} key={one.text}>
            <Icon name={one.severity === "error" ? "cross" : "warning"} size={13} />
            <span>{one.text}</span>
          </p>
        ))}
        {diagnostics.length + others.length === 0 && !readOnly && checked.text !== "" && (
          <p class="finding fine">
            <Icon name="check" size={13} /> <span>Nothing to complain about. Ctrl+Space completes, F8 goes to the next finding.</span>
          </p>
        )}
      </div>
    </Panel>
  );
}

function place(sql: string, offset: number): string {
  const before = sql.slice(0, offset).split("\n");
  return `${before.length}:${(before.at(-1)?.length ?? 0) + 1}`;
}
