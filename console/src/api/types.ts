// The answers of the HTTP interface, as far as the console reads them. Names are those of /api/v1/openapi.json.

export type Role = "viewer" | "operator" | "admin";

export interface WhoAmI {
  name: string;
  role: Role;
  scopes?: string[] | null;
  csrf_token?: string | null;
}

export interface Finding {
  rule?: string | null;
  action?: string | null;
  line?: number | null;
  column?: number | null;
  code?: string | null;
  message: string;
  detail?: string | null;
}

export interface Fault {
  origin?: string | null;
  line?: number | null;
  column?: number | null;
  rule?: string | null;
  action?: string | null;
  code?: string | null;
  message: string;
  help?: string | null;
}

export interface Alarm {
  alarm: string;
  subject: string;
  severity: string;
  detail: string;
  raised_at_ms: number;
  cleared_at_ms?: number | null;
}

export interface Counters {
  messages_received: number;
  messages_sent: number;
  bytes_received: number;
  bytes_sent: number;
  rules_matched: number;
  rules_passed: number;
  rules_failed: number;
  actions_delivered: number;
  actions_failed: number;
  actions_retried: number;
}

export interface Overview {
  at_ms: number;
  started_at_ms: number;
  health: { status: "ok" | "degraded" | "action_needed"; reasons: { kind: string; subject: string; text: string }[]; left_out: number };
  clients: { connected: number; sessions: number };
  counters: Counters;
  dropped: Record<string, number>;
  queue: { items: number; memory_bytes: number; disk_bytes: number; oldest_age_ms: number | null };
  disk: { free_bytes: number; store_bytes: number } | null;
  memory_bytes: number;
  alarms: Alarm[];
}

export interface History {
  at_ms: number[];
  series: { name: string; is_counter: boolean; values: number[] }[];
}

export interface DeliveryCounters {
  attempts: number;
  circuit: string;
  dead_lettered: Record<string, number>;
  delivered: number;
  dropped: Record<string, number>;
  failure: string | null;
  in_flight: number;
  memory_bytes: number;
  oldest_age_ms: number | null;
  queued: number;
  received: number;
  retried: number;
}

export interface ActionCounters {
  name: string;
  type: string;
  requests: number;
  failed_render: number;
  refused: number;
  backpressure: number;
  delivery?: DeliveryCounters | null;
}

export interface RuleCounters {
  name: string;
  matched: number;
  passed: number;
  no_match: number;
  no_output: number;
  failed_evaluation: number;
  failed_steps: number;
  last_match_at_ms: number | null;
  last_error: { error?: string; message?: string; at_ms?: number } | string | null;
  actions: ActionCounters[];
}

export interface Suspension {
  by: string;
  at_ms: number;
}

export interface RuleSummary {
  name: string;
  owner: "file" | "store";
  runs: boolean;
  enabled: boolean;
  suspended?: Suspension | null;
  version?: number | null;
  author?: string | null;
  changed_at_ms?: number | null;
  description: string;
  tags: string[];
  file: string;
  warnings: number;
  details?: { sql: string; warnings: string[]; counters?: RuleCounters | null };
}

export interface RulePage {
  rules: RuleSummary[];
  next?: string | null;
  /** Rules that there are, whatever was searched for. */
  total: number;
}

/** A rule as a rule file has it, the keys of `[rules.<name>]`. */
export interface Definition {
  sql: string;
  description?: string;
  tags?: string[];
  enabled?: boolean;
  actions: ActionDefinition[];
  error_action?: Record<string, unknown>;
  [key: string]: unknown;
}

export interface ActionDefinition {
  name: string;
  type: string;
  [key: string]: unknown;
}

export interface Rule {
  summary: RuleSummary;
  definition: Definition;
  warnings: string[];
  counters?: RuleCounters | null;
}

export interface ChangedMember {
  member: string;
  before: unknown;
  after: unknown;
}

export interface RulesChanged {
  rules: { name: string; change: string; version?: number | null; members: ChangedMember[] }[];
  warnings: string[];
}

export interface RuleVersion {
  number: number;
  at_ms: number;
  author: string;
  definition?: Definition | null;
  members?: ChangedMember[] | null;
}

export interface Validated {
  is_valid: boolean;
  rules: string[];
  faults: Finding[];
  warnings: Finding[];
}

/** An expression with what came of it, and of its parts. */
export interface Step {
  sql: string;
  result: string;
  type: string | null;
  value: unknown;
  cut: boolean;
  because: string | null;
  decides: boolean;
  steps: Step[];
}

export interface Rendered {
  text?: string;
  base64?: string;
  hex?: string;
}

export interface ExplainedAction {
  name: string;
  type: string;
  error?: unknown;
  parameters: { name: string; template: string; rendered: Rendered | null; error: unknown; steps: Step[] }[];
  would_send?: Record<string, Rendered> | null;
}

export interface Explanation {
  rule: string;
  outcome: string;
  error: unknown;
  from: { filter: string; matches: boolean }[];
  set: { name: string; expression: Step }[];
  where: Step | null;
  select: { name: string; expression: Step }[];
  output: unknown;
  actions: ExplainedAction[];
}

export interface UserProperty {
  name: string;
  value: string;
}

export interface SampleMessage {
  topic: string;
  payload?: string;
  payload_base64?: string;
  client_id?: string;
  username?: string;
  qos?: number;
  retain?: boolean;
  content_type?: string;
  response_topic?: string;
  user_properties?: UserProperty[];
}

export interface Shown {
  bytes: number;
  cut: boolean;
  text?: string;
  hex?: string;
}

export interface LiveMessage {
  topic: string;
  payload: Shown;
  publisher?: string | null;
  qos: number;
  retain: boolean;
  received_at_ms: number;
  content_type?: string | null;
  user_properties: UserProperty[];
}

export type ActionState = "running" | "waiting" | "refused" | "paused" | "draining" | "stopped";

export interface Action {
  rule: string;
  name: string;
  kind?: string | null;
  is_error_action: boolean;
  resource?: string | null;
  connector?: string | null;
  state: ActionState;
  cause?: string | null;
  paused?: Suspension | null;
  queue?: {
    is_durable: boolean;
    queued: number;
    in_flight: number;
    memory_bytes: number;
    disk_bytes?: number | null;
    oldest_age_ms?: number | null;
    next_attempt_in_ms?: number | null;
    failures_in_a_row: number;
  } | null;
  outcomes?: {
    received: number;
    delivered?: number | null;
    attempts: number;
    retried: number;
    dead_lettered: Record<string, number>;
    dropped: Record<string, number>;
    failed_render: number;
    backpressure: number;
  } | null;
  last_error?: { error: string; at_ms: number } | null;
  last_delivered_at_ms?: number | null;
}

export interface ActionPage {
  actions: Action[];
  next?: string | null;
}

export interface Connector {
  name: string;
  kind: string;
  addresses: string[];
  used_by: string[];
  uses: number;
  health: "ok" | "failing" | "unknown";
  cause?: string | null;
  last_delivered_at_ms?: number | null;
}

export interface ConnectorTest {
  passed: boolean;
  note?: string | null;
  steps: { server: string; stage: string; passed: boolean; detail: string; took_ms: number }[];
}

export interface Letter {
  name: string;
  rule: string;
  action: string;
  cause: string;
  error: string;
  attempts?: number | null;
  received_at_ms?: number | null;
  first_attempt_at_ms?: number | null;
  ended_at_ms?: number | null;
  topic?: string | null;
  publisher?: string | null;
  payload_bytes?: number | null;
}

export interface LetterPage {
  letters: Letter[];
  next?: string | null;
  /** How many the rule and the action have; null where a cause or a time is asked for, too. */
  total?: number | null;
}

export interface LetterMessage {
  topic: string;
  payload: Shown;
  publisher?: string | null;
  qos: number;
  received_at_ms: number;
  content_type?: string | null;
  response_topic?: string | null;
  user_properties: UserProperty[];
}

export interface WholeLetter {
  letter: Letter;
  message?: LetterMessage | null;
  request?: { name: string; value: Shown }[] | null;
}

export interface LettersDone {
  done: number;
  next?: string | null;
  refused: { name: string; message: string }[];
}

/** A case of a rule, as a case file has it; only what the console itself writes is named. */
export interface Case {
  id: string;
  rule: string;
  topic?: string;
  payload?: unknown;
  payload_text?: string;
  payload_base64?: string;
  clientid?: string;
  username?: string;
  qos?: number;
  retain?: boolean;
  properties?: { content_type?: string; response_topic?: string; user_properties?: [string, string][] };
  expect?: unknown;
  no_match?: boolean;
  error?: boolean;
  [key: string]: unknown;
}

export interface Verdict {
  id: string;
  pass: boolean | null;
  outcome?: string;
  rows?: ({ json: unknown } | { base64: string })[];
  error?: { stage: string; code?: string; message: string } | null;
  why?: string;
}

export interface TestedRules {
  passed: number;
  failed: number;
  open: number;
  verdicts: Verdict[];
}

export interface LanguageFunction {
  name: string;
  signature: string;
  summary: string;
  aliases?: string[];
  example: string;
  /** As JSON; null: Undefined. */
  result: string | null;
}

export interface Language {
  keywords: string[];
  functions: LanguageFunction[];
}

export interface RetainedSummary {
  topic: string;
  payload_bytes: number;
}
