// What fields an action of each kind has, and a rule beside its statement: read from the schema that the gateway's own types make, so that
// the editor has a field for every key, and none that the gateway doesn't know.
import schema from "../../../../config/rules.schema.json";

export interface FormField {
  key: string;
  label: string;
  /** What the schema says of it. */
  help: string;
  /** `scalar`: a number, a truth value, or a template that makes one. */
  kind: "text" | "long" | "number" | "flag" | "scalar" | "choice" | "pairs" | "words" | "numbers" | "group";
  required: boolean;
  /** What holds when nothing is written, as the schema has it. */
  fallback: string;
  /** Of a choice. */
  options: { value: string; help: string }[];
  /** Of a group. */
  fields: FormField[];
}

export interface Form {
  type: string;
  label: string;
  /** The fields that nearly every action of the kind needs, and the others. */
  main: FormField[];
  more: FormField[];
  /** Whether it goes through a connector. */
  hasConnector: boolean;
}

interface Schema {
  $ref?: string;
  const?: string;
  type?: string;
  description?: string;
  default?: unknown;
  properties?: Record<string, Schema>;
  additionalProperties?: unknown;
  required?: string[];
  items?: Schema;
  oneOf?: Schema[];
  anyOf?: Schema[];
}

const definitions = schema.$defs as unknown as Record<string, Schema>;

const LABELS: Record<string, string> = {
  republish: "Republish to a topic",
  http: "HTTP request",
  log: "Line in the log",
  kafka: "Kafka record",
  amqp: "AMQP message",
  nats: "NATS message",
  redis: "Redis command",
};

/** Fields that are seen at once, in this order; whatever else a kind needs comes behind them. */
const MAIN: Record<string, string[]> = {
  republish: ["topic", "qos", "retain", "payload"],
  http: ["url", "method", "headers", "body"],
  log: ["level", "message"],
  kafka: ["topic", "key", "value"],
  amqp: ["exchange", "routing_key", "body"],
  nats: ["subject", "payload"],
  redis: ["command", "key", "value"],
};

/** Texts of several lines. */
const LONG = new Set(["payload", "body", "value", "message"]);

/** Written otherwise than the key with spaces. */
const WRITTEN: Record<string, string> = { url: "URL", qos: "QoS", json: "JSON", run_as: "Run as" };

/** Keys that have a place of their own in the form. */
const ELSEWHERE = new Set(["name", "type", "connector"]);

function resolved(one: Schema): Schema {
  if (!one.$ref) return one;
  const found = definitions[one.$ref.replace("#/$defs/", "")];
  return found ? { ...found, ...one, $ref: "" } : one;
}

function kindOf(key: string, one: Schema): FormField["kind"] {
  if (one.oneOf) return "choice";
  if (one.anyOf) return "scalar";
  if (one.type === "object") return one.properties ? "group" : "pairs";
  if (one.type === "array") return one.items?.type === "integer" ? "numbers" : "words";
  if (one.type === "integer") return "number";
  if (one.type === "boolean") return "flag";
  return LONG.has(key) ? "long" : "text";
}

function fieldOf(key: string, given: Schema, required: boolean): FormField {
  const one = resolved(given);
  const words = key.replaceAll("_", " ");
  return {
    key,
    label: WRITTEN[key] ?? words.charAt(0).toUpperCase() + words.slice(1),
    help: (given.description ?? one.description ?? "").replaceAll("`", ""),
    kind: kindOf(key, one),
    required,
    fallback: one.default === undefined || Array.isArray(one.default) ? "" : String(one.default),
    options: (one.oneOf ?? []).map((option) => ({ value: option.const ?? "", help: option.description ?? "" })),
    fields: fieldsOf(one),
  };
}

function fieldsOf(one: Schema): FormField[] {
  const required = new Set(one.required);
  const fields = Object.entries(one.properties ?? {}).map(([key, property]) => fieldOf(key, property, required.has(key)));
  // Groups of fields stand below single ones.
  return [...fields.filter((field) => field.kind !== "group"), ...fields.filter((field) => field.kind === "group")];
}

export const FORMS: Form[] = (definitions["Action"]?.oneOf ?? []).map((one) => {
  const type = one.properties?.["type"]?.const ?? "";
  const fields = fieldsOf(one).filter((field) => !ELSEWHERE.has(field.key));
  const first = MAIN[type] ?? [];
  const place = (field: FormField) => first.indexOf(field.key);
  const isMain = (field: FormField) => place(field) >= 0 || field.required;
  return {
    type,
    label: LABELS[type] ?? type,
    main: fields.filter(isMain).sort((one, other) => place(one) - place(other)),
    more: fields.filter((field) => !isMain(field)),
    hasConnector: one.properties?.["connector"] !== undefined,
  };
});

export function formOf(type: string): Form {
  return FORMS.find((form) => form.type === type) ?? { type, label: type, hasConnector: true, main: [], more: [] };
}

/** Of a rule: what stands neither in its statement nor in its actions. */
export const RULE_FIELDS: FormField[] = fieldsOf(definitions["Rule"] ?? {}).filter(
  (field) => !["sql", "actions", "error_action", "enabled"].includes(field.key),
);

/** What a field's text is in a definition; undefined: the key isn't written at all. */
export function valueOf(kind: FormField["kind"], text: string): unknown {
  if (text === "") return undefined;
  switch (kind) {
    case "number":
      return isNumber(text) ? Number(text) : text;
    case "flag":
      return text === "true";
    case "scalar":
      if (text === "true" || text === "false") return text === "true";
      return isNumber(text) ? Number(text) : text;
    case "words":
      return parts(text);
    case "numbers":
      return parts(text).map((part) => (isNumber(part) ? Number(part) : part));
    default:
      return text;
  }
}

function isNumber(text: string): boolean {
  return /^(0|[1-9]\d{0,14})$/.test(text);
}

function parts(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
}

/** The text of a field for what a definition has. */
export function textOf(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) return value.map(String).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
