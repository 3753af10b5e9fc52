// The rule's actions, each as a form, and what is done when one of them or the evaluation fails.
import { useRef } from "preact/hooks";
import { api, path } from "../../api/client";
import { useResource } from "../../api/resource";
import type { ActionDefinition, Connector, Definition } from "../../api/types";
import { Icon } from "../../components/icons";
import { sayUndo } from "../../components/Notices";
import { Panel } from "../../components/Page";
import type { Finds } from "../../editor/findings";
import { may } from "../../state/session";
import { FORMS, formOf } from "./actionForms";
import { Fields } from "./Fields";

/** What the gateway calls the error action where it finds something about it. */
const ERROR_ACTION = "error_action";

/** Actions that a rule may have. */
const ACTIONS_MAX = 64;

interface Props {
  definition: Definition;
  finds: Finds;
  readOnly: boolean;
  onChange: (definition: Definition) => void;
}

export function ActionsPanel({ definition, finds, readOnly, onChange }: Props) {
  const connectors = useResource(may("viewer", "connectors:read") ? "connectors" : null, () =>
    api.get<{ connectors: Connector[] }>(path("connectors"), { limit: 1000 }),
  );
  // Which form is which, whatever is added and taken out around it.
  const ids = useRef<number[]>([]);
  const nextId = useRef(1);
  while (ids.current.length < definition.actions.length) ids.current.push(nextId.current++);
  const latest = useRef(definition);
  latest.current = definition;

  const set = (index: number, action: ActionDefinition) =>
    onChange({ ...definition, actions: definition.actions.map((one, at) => (at === index ? action : one)) });
  const put = (index: number, action: ActionDefinition) => {
    const { actions } = latest.current;
    ids.current.splice(index, 0, nextId.current++);
    onChange({ ...latest.current, actions: [...actions.slice(0, index), action, ...actions.slice(index)] });
  };
  const remove = (index: number) => {
    const removed = definition.actions[index];
    ids.current.splice(index, 1);
    onChange({ ...definition, actions: definition.actions.filter((_, at) => at !== index) });
    if (removed) sayUndo(`The action ${removed.name} is taken out`, () => put(Math.min(index, latest.current.actions.length), removed));
  };
  const setError = (action: Record<string, unknown> | undefined) => {
    const next = { ...latest.current };
    if (action) next.error_action = action;
    else delete next.error_action;
    onChange(next);
  };
  const errorAction = definition.error_action;
  const known = connectors.data?.connectors ?? [];
  return (
    <Panel
      title="Actions"
      tools={
        !readOnly && (
          <button
            type="button"
            disabled={definition.actions.length >= ACTIONS_MAX}
            onClick={() => put(definition.actions.length, { name: freeName(definition.actions), type: "log" })}
          >
            <Icon name="plus" /> Add action
          </button>
        )
      }
    >
      <ol class="action-list">
        {definition.actions.map((action, index) => (
          <li key={ids.current[index]}>
            <ActionForm
              action={action}
              label={`Action ${index + 1}`}
              complaints={finds.elsewhere.get(action.name) ?? []}
              connectors={known}
              readOnly={readOnly}
              onChange={(changed) => set(index, changed as ActionDefinition)}
              onRemove={definition.actions.length > 1 ? () => remove(index) : null}
            />
          </li>
        ))}
      </ol>
      {(errorAction || !readOnly) && (
        <section class="error-action" aria-label="Error action">
          <h3>When an action or the evaluation fails</h3>
          {errorAction ? (
            <ActionForm
              action={errorAction}
              label="Error action"
              complaints={finds.elsewhere.get(ERROR_ACTION) ?? []}
              connectors={known}
              readOnly={readOnly}
              onChange={setError}
              onRemove={() => {
                setError(undefined);
                sayUndo("The error action is taken out", () => setError(errorAction));
              }}
            />
          ) : (
            <button type="button" class="quiet" onClick={() => setError({ type: "republish", topic: "errors" })}>
              <Icon name="plus" /> Add an error action
            </button>
          )}
        </section>
      )}
    </Panel>
  );
}

interface FormProps {
  action: Record<string, unknown>;
  label: string;
  complaints: { severity: "error" | "warning"; text: string }[];
  connectors: Connector[];
  readOnly: boolean;
  onChange: (action: Record<string, unknown>) => void;
  onRemove: (() => void) | null;
}

function ActionForm({ action, label, complaints, connectors, readOnly, onChange, onRemove }: FormProps) {
  const type = String(action["type"] ?? "");
  const name = action["name"] === undefined ? undefined : String(action["name"]);
  const form = formOf(type);
  // What was written as another kind is there again when one comes back to it.
  const others = useRef<Map<string, Record<string, unknown>>>(new Map());
  const put = (key: string, value: unknown) => {
    const changed = { ...action, [key]: value };
    if (value === undefined || value === "") delete changed[key];
    onChange(changed);
  };
  const turn = (to: string) => {
    others.current.set(type, action);
    const { name: _, ...rest } = others.current.get(to) ?? { type: to };
    onChange(name === undefined ? rest : { name, ...rest });
  };
  const connector = action["connector"];
  const fitting = connectors.filter((one) => one.kind === type);
  const isSet = form.more.some((field) => action[field.key] !== undefined);
  return (
    <fieldset class="action-form" disabled={readOnly}>
      <legend class="hidden">{label}</legend>
      <div class="action-head">
        {name !== undefined && (
          <label class="field">
            <span>Name</span>
            <input value={name} maxLength={64} spellcheck={false} onInput={(event) => onChange({ ...action, name: event.currentTarget.value })} />
          </label>
        )}
        <label class="field">
          <span>Type</span>
          <select value={type} onChange={(event) => turn(event.currentTarget.value)}>
            {FORMS.map((one) => (
              <option key={one.type} value={one.type}>
                {one.label}
              </option>
            ))}
            {!FORMS.some((one) => one.type === type) && <option value={type}>{type}</option>}
          </select>
        </label>
        {form.hasConnector && (
          <label class="field">
            <span>Connector</span>
            <select value={String(connector ?? "")} onChange={(event) => put("connector", event.currentTarget.value)}>
              <option value="">none</option>
              {fitting.map((one) => (
                <option key={one.name} value={one.name}>
                  {one.name}
                </option>
              ))}
              {typeof connector === "string" && !fitting.some((one) => one.name === connector) && <option value={connector}>{connector}</option>}
            </select>
          </label>
        )}
        {!readOnly && onRemove && (
          <button type="button" class="quiet" onClick={onRemove}>
            <Icon name="trash" />
            <span class="hidden">Remove {name === undefined ? "the error action" : `action ${name}`}</span>
          </button>
        )}
      </div>
      <Fields key={type} fields={form.main} values={action} readOnly={readOnly} onChange={put} />
      {form.more.length > 0 && (!readOnly || isSet) && (
        <details class="rest" open={isSet}>
          <summary>More: {form.more.slice(0, 4).map((field) => field.label.toLowerCase()).join(", ")} …</summary>
          <Fields key={type} fields={form.more} values={action} readOnly={readOnly} onChange={put} />
        </details>
      )}
      {complaints.map((one) => (
        <p class={`finding ${one.severity}`} key={one.text}>
          <Icon name={one.severity === "error" ? "cross" : "warning"} size={13} /> <span>{one.text}</span>
        </p>
      ))}
    </fieldset>
  );
}

function freeName(actions: ActionDefinition[]): string {
  let number = actions.length + 1;
  while (actions.some((action) => action.name === `action-${number}`)) number += 1;
  return `action-${number}`;
}
