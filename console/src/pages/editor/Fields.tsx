// Fields of a form, as a schema describes them: whatever is written goes into the definition, what is left empty isn't written.
import { useEffect, useId, useState } from "preact/hooks";
import { Icon } from "../../components/icons";
import { type FormField, textOf, valueOf } from "./actionForms";

type Values = Record<string, unknown>;

interface Props {
  fields: FormField[];
  values: Values;
  readOnly: boolean;
  onChange: (key: string, value: unknown) => void;
}

export function Fields({ fields, values, readOnly, onChange }: Props) {
  return (
    <div class="action-fields">
      {fields.map((field) => (
        <Field key={field.key} field={field} value={values[field.key]} readOnly={readOnly} onChange={(value) => onChange(field.key, value)} />
      ))}
    </div>
  );
}

interface FieldProps {
  field: FormField;
  value: unknown;
  readOnly: boolean;
  onChange: (value: unknown) => void;
}

function Field(props: FieldProps) {
  if (props.field.kind === "group") return <Group {...props} />;
  if (props.field.kind === "pairs") return <Pairs {...props} />;
  return <Plain {...props} />;
}

function Plain({ field, value, onChange }: FieldProps) {
  const id = useId();
  const helpId = useId();
  const isList = field.kind === "words" || field.kind === "numbers";
  // What is typed into a list isn't what comes of it: a comma at the end would go away under the fingers.
  const [typed, setTyped] = useState(textOf(value));
  const text = isList && JSON.stringify(valueOf(field.kind, typed)) === JSON.stringify(value) ? typed : textOf(value);
  const set = (next: string) => {
    setTyped(next);
    onChange(valueOf(field.kind, next));
  };
  const common = { id, value: text, "aria-describedby": helpId };
  const options = field.kind === "choice" ? field.options : field.kind === "flag" ? FLAGS : null;
  return (
    <div class={field.kind === "long" ? "field long" : "field"}>
      <label for={id}>{field.label}</label>
      {options ? (
        <select {...common} onChange={(event) => set(event.currentTarget.value)}>
          <option value="">{field.fallback ? `default: ${field.fallback}` : "default"}</option>
          {options.map((option) => (
            <option key={option.value} value={option.value} title={option.help}>
              {option.value}
            </option>
          ))}
          {text !== "" && !options.some((option) => option.value === text) && <option value={text}>{text}</option>}
        </select>
      ) : field.kind === "long" ? (
        <textarea {...common} rows={2} class="mono" placeholder="The rule's output" spellcheck={false} onInput={(event) => set(event.currentTarget.value)} />
      ) : (
        <input
          {...common}
          class={field.help.startsWith("Template") ? "mono" : ""}
          inputMode={field.kind === "number" ? "numeric" : undefined}
          placeholder={isList ? "one, another" : field.fallback}
          spellcheck={false}
          onInput={(event) => set(event.currentTarget.value)}
        />
      )}
      <small id={helpId} title={field.help}>
        {helpOf(field, text)}
      </small>
    </div>
  );
}

const FLAGS = [
  { value: "true", help: "yes" },
  { value: "false", help: "no" },
];

/** The first sentence; of a choice, what the chosen one does. */
function helpOf(field: FormField, text: string): string {
  const chosen = field.options.find((option) => option.value === (text || field.fallback));
  return chosen?.help || (/^.*?[.](?= |$)/.exec(field.help)?.[0] ?? field.help);
}

function Group({ field, value, readOnly, onChange }: FieldProps) {
  const values = (value ?? {}) as Values;
  const put = (key: string, member: unknown) => {
    const next = { ...values, [key]: member };
    if (member === undefined) delete next[key];
    onChange(Object.keys(next).length ? next : undefined);
  };
  return (
    <details class="rest" open={value !== undefined}>
      <summary>
        {field.label}: <span class="faint">{field.help}</span>
      </summary>
      <Fields fields={field.fields} values={values} readOnly={readOnly} onChange={put} />
    </details>
  );
}

type Pair = [string, string];

function Pairs({ field, value, readOnly, onChange }: FieldProps) {
  // A name that is still empty, or there twice, has no place in the definition: the rows are what is written.
  const [rows, setRows] = useState<Pair[]>(() => pairsOf(value));
  useEffect(() => {
    if (JSON.stringify(value ?? {}) !== JSON.stringify(Object.fromEntries(written(rows)))) setRows(pairsOf(value));
  }, [value]);
  const set = (next: Pair[]) => {
    setRows(next);
    const kept = written(next);
    onChange(kept.length ? Object.fromEntries(kept) : undefined);
  };
  const put = (index: number, change: Partial<{ name: string; text: string }>) =>
    set(rows.map(([name, text], at): Pair => (at === index ? [change.name ?? name, change.text ?? text] : [name, text])));
  const isTwice = new Set(written(rows).map(([name]) => name)).size < written(rows).length;
  return (
    <fieldset class="field long pairs">
      <legend>{field.label}</legend>
      {rows.map(([name, text], index) => (
        <div class="pair" key={index}>
          <input class="mono" aria-label={`${field.label}: name ${index + 1}`} value={name} placeholder="name" spellcheck={false} onInput={(event) => put(index, { name: event.currentTarget.value })} />
          <input class="mono" aria-label={`${field.label}: value ${index + 1}`} value={text} placeholder="value or ${template}" spellcheck={false} onInput={(event) => put(index, { text: event.currentTarget.value })} />
          {!readOnly && (
            <button type="button" class="quiet" onClick={() => set(rows.filter((_, at) => at !== index))}>
              <Icon name="cross" size={14} />
              <span class="hidden">
                Remove {name || `row ${index + 1}`} from {field.label}
              </span>
            </button>
          )}
        </div>
      ))}
      {isTwice && <p class="hint complaint-soft">A name stands there twice: the last one counts.</p>}
      {!readOnly && (
        <button type="button" class="quiet" onClick={() => setRows([...rows, ["", ""]])}>
          <Icon name="plus" /> Add<span class="hidden"> to {field.label}</span>
        </button>
      )}
      <small>{field.help}</small>
    </fieldset>
  );
}

function pairsOf(value: unknown): Pair[] {
  return Object.entries((value ?? {}) as Values).map(([name, text]): Pair => [name, textOf(text)]);
}

function written(rows: Pair[]): Pair[] {
  return rows.filter(([name]) => name !== "");
}
