// The rule as it is being written, and the message that it is tried with.
import type { Case, Definition, LiveMessage, SampleMessage, UserProperty } from "../../api/types";
import { fromHex, hexOfBase64, type PayloadFormat, payloadMembers, toBase64 } from "../../text/payload";

export const NEW_RULE: Definition = {
  sql: "SELECT *\nFROM 'sensors/+'",
  actions: [{ name: "log", type: "log" }],
};

/** The message in the input pane. */
export interface Input {
  /** Of a live message: how long its payload is, when only its beginning is here. */
  cutFrom?: number;
  topic: string;
  format: PayloadFormat;
  text: string;
  clientId: string;
  username: string;
  qos: number;
  retain: boolean;
  contentType: string;
  responseTopic: string;
  userProperties: UserProperty[];
}

export const EMPTY_INPUT: Input = {
  topic: "sensors/hall",
  format: "json",
  text: '{"temperature": 21.5}',
  clientId: "",
  username: "",
  qos: 0,
  retain: false,
  contentType: "",
  responseTopic: "",
  userProperties: [],
};

/** What the input pane has when a rule is opened: its first sample, else a message on a topic that FROM selects. */
export function firstInput(cases: Case[], filters: string[]): Input {
  const sample = cases[0];
  if (sample) return inputOfCase(sample);
  const filter = filters[0]?.replace(/^\$share\/[^/]+\//, "");
  return filter ? { ...EMPTY_INPUT, topic: filter.replaceAll("+", "x").replaceAll("#", "x") } : EMPTY_INPUT;
}

/** A live message, frozen. */
export function inputOf(message: LiveMessage): Input {
  const text = message.payload.text;
  return {
    ...EMPTY_INPUT,
    topic: message.topic,
    format: text === undefined ? "hex" : isJson(text) ? "json" : "text",
    text: text ?? message.payload.hex ?? "",
    ...(message.payload.cut ? { cutFrom: message.payload.bytes } : {}),
    clientId: message.publisher ?? "",
    qos: message.qos,
    retain: message.retain,
    contentType: message.content_type ?? "",
    userProperties: message.user_properties,
  };
}

export function inputOfCase(sample: Case): Input {
  const properties = sample.properties ?? {};
  let format: PayloadFormat = "text";
  let text = "";
  if (sample.payload_base64 !== undefined) {
    format = "hex";
    text = hexOfBase64(sample.payload_base64);
  } else if (sample.payload_text !== undefined) {
    text = sample.payload_text;
    format = isJson(text) ? "json" : "text";
  } else if (typeof sample.payload === "string") {
    text = sample.payload;
  } else if (sample.payload !== undefined) {
    format = "json";
    text = JSON.stringify(sample.payload, null, 2);
  }
  return {
    topic: sample.topic ?? "",
    format,
    text,
    clientId: sample.clientid ?? "",
    username: sample.username ?? "",
    qos: sample.qos ?? 0,
    retain: sample.retain ?? false,
    contentType: properties.content_type ?? "",
    responseTopic: properties.response_topic ?? "",
    userProperties: (properties.user_properties ?? []).map(([name, value]) => ({ name, value })),
  };
}

/** As `rules/explain` takes it. */
export function sampleOf(input: Input): SampleMessage {
  const message: SampleMessage = { topic: input.topic, qos: input.qos, retain: input.retain, ...payloadMembers(input.format, input.text) };
  if (input.clientId) message.client_id = input.clientId;
  if (input.username) message.username = input.username;
  if (input.contentType) message.content_type = input.contentType;
  if (input.responseTopic) message.response_topic = input.responseTopic;
  if (input.userProperties.length) message.user_properties = input.userProperties;
  return message;
}

/** As a case has it, without an outcome. */
export function caseOf(id: string, rule: string, input: Input): Case {
  const sample: Case = { id, rule, topic: input.topic };
  if (input.format === "hex") sample.payload_base64 = toBase64(fromHex(input.text) ?? new Uint8Array());
  else sample.payload_text = input.text;
  if (input.clientId) sample.clientid = input.clientId;
  if (input.username) sample.username = input.username;
  if (input.qos) sample.qos = input.qos;
  if (input.retain) sample.retain = true;
  const properties: Case["properties"] = {};
  if (input.contentType) properties.content_type = input.contentType;
  if (input.responseTopic) properties.response_topic = input.responseTopic;
  if (input.userProperties.length) properties.user_properties = input.userProperties.map(({ name, value }) => [name, value]);
  if (Object.keys(properties).length) sample.properties = properties;
  return sample;
}

/** A live message as a case without an outcome, to see what becomes of it. */
export function caseOfLive(id: string, rule: string, message: LiveMessage): Case {
  return caseOf(id, rule, inputOf(message));
}

export function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
